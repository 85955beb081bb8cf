//! `image load|ls|inspect|rm|tag`, `load`, `images`.
use super::{each, filters, inspect};
use crate::{
    args::{ImageCommand, ImageList, Load},
    client::Client,
    error::{CliError, CliResult},
    table::Table,
    text::{ago, at, escape, id, list, number, size},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::unfold;
use http_body_util::BodyExt;
use serde_json::Value;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of an archive sent at once.
const CHUNK: usize = 64 << 10;

pub(crate) async fn run(client: &Client, command: ImageCommand) -> CliResult<()> {
    match command {
        ImageCommand::Load(load) => self::load(client, load).await,
        ImageCommand::Ls(list) => ls(client, list).await,
        ImageCommand::Inspect { images } => {
            inspect::several(client, &images, |n| format!("/images/{}/json", escape(n))).await
        }
        ImageCommand::Rm { images } => {
            each(&images, async |image| {
                let gone = client.delete(&format!("/images/{}", escape(image))).await?;
                let gone: Vec<Value> = serde_json::from_slice(&gone).unwrap_or_default();
                for line in gone.iter().filter_map(Value::as_object).flatten() {
                    println!("{}: {}", line.0, line.1.as_str().unwrap_or_default());
                }
                Ok(())
            })
            .await
        }
        ImageCommand::Tag { source, target } => {
            let slash = target.rfind('/').map_or(0, |i| i + 1);
            let (repo, tag) = match target[slash..].find(':') {
                Some(i) => (&target[..slash + i], &target[slash + i + 1..]),
                None => (target.as_str(), "latest"),
            };
            let (source, repo, tag) = (escape(&source), escape(repo), escape(tag));
            let path = format!("/images/{source}/tag?repo={repo}&tag={tag}");
            client.post(&path, &Value::Null).await?;
            Ok(())
        }
    }
}

async fn load(client: &Client, load: Load) -> CliResult<()> {
    let source: Box<dyn AsyncRead + Send + Unpin> = match &load.input {
        Some(path) => {
            let file = tokio::fs::File::open(path).await;
            Box::new(file.map_err(|e| CliError::io(format!("open {}", path.display()), e))?)
        }
        None if std::io::stdin().is_terminal() => {
            return Err(CliError::usage("requested load from stdin, but stdin is empty"));
        }
        None => {
            let own = std::io::stdin().as_fd().try_clone_to_owned();
            let own = own.map_err(|e| CliError::io("read standard input", e))?;
            Box::new(tokio::fs::File::from_std(own.into()))
        }
    };
    let chunks = unfold(source, async |mut source| {
        let mut buffer = vec![0; CHUNK];
        match source.read(&mut buffer).await {
            Ok(0) => None,
            Ok(n) => {
                buffer.truncate(n);
                Some((Ok(Bytes::from(buffer)), source))
            }
            Err(e) => Some((Err(e), source)),
        }
    });
    let answer = client.upload("/images/load?quiet=1", chunks).await?;
    let body = answer.into_body().collect().await;
    let body = body.map_err(|e| CliError::io("the daemon's answer broke off", e))?.to_bytes();
    for line in serde_json::Deserializer::from_slice(&body).into_iter::<Value>() {
        let line = line.map_err(|e| CliError::io("cannot read the daemon's answer", e))?;
        if let Some(message) = line["errorDetail"]["message"].as_str() {
            return Err(CliError::usage(message));
        }
        if !load.quiet {
            print!("{}", at(&line, "/stream"));
        }
    }
    Ok(())
}

async fn ls(client: &Client, args: ImageList) -> CliResult<()> {
    let mut given = args.listing.filter.clone();
    given.extend(args.repository.iter().map(|r| format!("reference={r}")));
    let images: Vec<Value> = client.get(&format!("/images/json?{}", filters(&given)?)).await?;
    let full = args.no_trunc;
    let shown = |image: &Value| match full {
        true => at(image, "/Id").to_owned(),
        false => id(at(image, "/Id"), false),
    };
    if args.listing.quiet {
        images.iter().for_each(|i| println!("{}", shown(i)));
        return Ok(());
    }
    let mut table = Table::new(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    for image in &images {
        let created = DateTime::<Utc>::from_timestamp(number(image, "/Created"), 0);
        let created = created.map(|t| ago(&t.to_rfc3339(), Utc::now())).unwrap_or_default();
        let tags = list(image, "/RepoTags").iter().filter_map(Value::as_str);
        let mut names: Vec<(&str, &str)> = tags.filter_map(|t| t.rsplit_once(':')).collect();
        if names.is_empty() {
            names.push(("<none>", "<none>"));
        }
        for (repository, tag) in names {
            table.row(vec![
                repository.to_owned(),
                tag.to_owned(),
                shown(image),
                created.clone(),
                size(number(image, "/Size")),
            ]);
        }
    }
    table.print();
    Ok(())
}
