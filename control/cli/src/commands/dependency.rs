//! `secret` and `config`: `create|inspect|ls|rm`.
use super::{each, filters, inspect, pairs};
use crate::{
    args::{DependencyCommand, DependencyCreate, Listing},
    client::Client,
    error::{CliError, CliResult},
    table::Table,
    text::{ago, at, escape, natural},
};
use chrono::Utc;
use serde_json::Value;
use shoal_model::{Content, DependencyKind, DependencySpec, docker};
use std::{
    fs::File,
    io::{self, Read},
};

pub(crate) async fn run(
    client: &Client,
    kind: DependencyKind,
    command: DependencyCommand,
) -> CliResult<()> {
    let path = |name: &str| format!("/{kind}s/{}", escape(name));
    match command {
        DependencyCommand::Create(create) => self::create(client, kind, create).await,
        DependencyCommand::Inspect { names } => inspect::several(client, &names, path).await,
        DependencyCommand::Ls(listing) => ls(client, kind, listing).await,
        DependencyCommand::Rm { names } => {
            each(&names, async |name| {
                client.delete(&path(name)).await?;
                println!("{name}");
                Ok(())
            })
            .await
        }
    }
}

async fn create(client: &Client, kind: DependencyKind, create: DependencyCreate) -> CliResult<()> {
    let data = read(kind, &create.file).map_err(|e| {
        CliError::usage(format!("error reading content from {:?}: {e}", create.file))
    })?;
    let driver = create.template_driver.map(|name| docker::Driver { name, options: None });
    let request = DependencySpec {
        name: create.name,
        labels: Some(pairs(&create.label).into_iter().collect()),
        data: Some(data),
        driver: None,
        templating: driver,
    };
    let answer: Value = client.post_json(&format!("/{kind}s/create"), &request).await?;
    println!("{}", at(&answer, "/ID"));
    Ok(())
}

/// The content of a file or of the standard input; of one that is too long, as much as shows that it is.
fn read(kind: DependencyKind, file: &str) -> io::Result<Content> {
    let most = kind.max_size();
    // With room for all of it, so that no copy is left behind.
    let mut bytes = Vec::with_capacity(most);
    let bound = most as u64;
    match file {
        "-" => io::stdin().lock().take(bound).read_to_end(&mut bytes)?,
        path => File::open(path)?.take(bound).read_to_end(&mut bytes)?,
    };
    Ok(bytes.into())
}

async fn ls(client: &Client, kind: DependencyKind, listing: Listing) -> CliResult<()> {
    let mut all: Vec<Value> =
        client.get(&format!("/{kind}s?{}", filters(&listing.filter)?)).await?;
    all.sort_by(|a, b| natural(at(a, "/Spec/Name"), at(b, "/Spec/Name")));
    if listing.quiet {
        all.iter().for_each(|one| println!("{}", at(one, "/ID")));
        return Ok(());
    }
    // Docker's secrets may have a driver.
    let driver: &[&str] = if kind == DependencyKind::Secret { &["DRIVER"] } else { &[] };
    let mut table = Table::new(&[&["ID", "NAME"], driver, &["CREATED", "UPDATED"]].concat());
    let now = Utc::now();
    for one in &all {
        let mut cells = vec![at(one, "/ID").to_owned(), at(one, "/Spec/Name").to_owned()];
        cells.extend(driver.iter().map(|_| at(one, "/Spec/Driver/Name").to_owned()));
        cells.extend(["/CreatedAt", "/UpdatedAt"].map(|time| ago(at(one, time), now)));
        table.row(cells);
    }
    table.print();
    Ok(())
}
