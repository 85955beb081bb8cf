//! The forms that values of flags have.

use super::Parsed;
use shoal_model::docker;

/// `KEY` alone takes its value from our own environment, and is left out without one.
pub(super) fn environment(given: &[String]) -> Vec<String> {
    given
        .iter()
        .filter_map(|e| match e.contains('=') {
            true => Some(e.clone()),
            false => std::env::var(e).ok().map(|value| format!("{e}={value}")),
        })
        .collect()
}

/// `app` or `name=app,alias=a,alias=b`.
pub(super) fn network(text: &str) -> Parsed<docker::NetworkAttachmentConfig> {
    if !text.contains('=') {
        let target = Some(text.to_owned());
        return Ok(docker::NetworkAttachmentConfig { target, ..Default::default() });
    }
    let mut out = docker::NetworkAttachmentConfig::default();
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("name", name)) => out.target = Some(name.to_owned()),
            Some(("alias", alias)) => out.aliases.get_or_insert_default().push(alias.to_owned()),
            _ => {
                return Err(format!(
                    "invalid field {field:?} of network {text:?}: name= and alias= are known"
                ));
            }
        }
    }
    match out.target {
        Some(_) => Ok(out),
        None => Err(format!("network {text:?} has no name=")),
    }
}

/// `8080:80/tcp`, `80`, or `published=8080,target=80,protocol=tcp,mode=ingress`.
pub(super) fn port(text: &str) -> Parsed<docker::EndpointPortConfig> {
    let bad = || {
        format!(
            "invalid port {text:?}: give [PUBLISHED:]TARGET[/tcp|udp] or published=…,target=…,protocol=…,mode=…"
        )
    };
    let number = |t: &str| t.parse::<u16>().map(i64::from).map_err(|_| bad());
    let (mut published, mut target, mut protocol, mut mode) = (None, None, "tcp", "ingress");
    if text.contains('=') {
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("published", n)) => published = Some(number(n)?),
                Some(("target", n)) => target = Some(number(n)?),
                Some(("protocol", p)) => protocol = p,
                Some(("mode", m)) => mode = m,
                _ => return Err(bad()),
            }
        }
    } else {
        let (ports, named) = text.split_once('/').unwrap_or((text, "tcp"));
        protocol = named;
        match ports.split_once(':') {
            Some((p, t)) => (published, target) = (Some(number(p)?), Some(number(t)?)),
            None => target = Some(number(ports)?),
        }
    }
    Ok(docker::EndpointPortConfig {
        name: None,
        protocol: Some(match protocol {
            "tcp" => docker::EndpointPortConfigProtocolEnum::TCP,
            "udp" => docker::EndpointPortConfigProtocolEnum::UDP,
            "sctp" => docker::EndpointPortConfigProtocolEnum::SCTP,
            _ => return Err(bad()),
        }),
        target_port: Some(target.filter(|t| *t > 0).ok_or_else(bad)?),
        published_port: published,
        publish_mode: Some(match mode {
            "ingress" => docker::EndpointPortConfigPublishModeEnum::INGRESS,
            "host" => docker::EndpointPortConfigPublishModeEnum::HOST,
            _ => return Err(bad()),
        }),
    })
}

/// `spread=node.labels.zone`.
pub(super) fn preference(text: &str) -> Parsed<docker::TaskSpecPlacementPreferences> {
    let fields: Vec<&str> = text.split('=').collect();
    let &[strategy, over] = &fields[..] else {
        return Err("placement preference must be of the format \"<strategy>=<arg>\"".to_owned());
    };
    if strategy != "spread" {
        return Err(format!(
            "unsupported placement preference {strategy} (only spread is supported)"
        ));
    }
    let spread = docker::TaskSpecPlacementSpread { spread_descriptor: Some(over.to_owned()) };
    Ok(docker::TaskSpecPlacementPreferences { spread: Some(spread) })
}

/// Splits a command as a shell does: blanks, quotes, backslashes.
pub(super) fn words(text: &str) -> Parsed<Vec<String>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or_else(|| format!("{text:?} ends in a backslash"))?;
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("{text:?} has a quote that is not closed"));
    }
    out.extend(word);
    Ok(out)
}
