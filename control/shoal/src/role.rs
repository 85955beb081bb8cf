//! Keeps a member what the cluster wants it to be: its certificate renewed in time, with the role it has
//! and by the root that is wanted, what it trusts, its manager part running while it is a manager.
//!
//! One task per membership. Its order survives a crash anywhere: the certificate on disk decides what the
//! node is. Promoted, a node first has its new certificate and then takes its place among the managers;
//! a node with a manager's certificate and no store, or an unfinished one, goes on from there. Demoted,
//! it first has its worker's certificate, then ends the manager and removes the store; a store beside a
//! worker's certificate is removed at the next start.
use crate::membership::{Host, Member};
use anyhow::{Context, Result};
use shoal_agent::{WantedTls, renew};
use shoal_cores::renewal_at;
use shoal_identity::{CertificateDir, KeyLock, NodeCertificate, Trust};
use shoal_manager::{Manager, ManagerConfig};
use shoal_model::Role;
use std::{
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::sleep;

/// Pause between two looks at the state.
const PACE: Duration = Duration::from_millis(100);

/// Pause after something failed.
const RETRY: Duration = Duration::from_secs(1);

/// Longest sleep, in case the clock is set.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// Where a member's files are.
pub(crate) struct Folders {
    data_root: PathBuf,
    state_dir: PathBuf,
}

impl Folders {
    pub(crate) fn of(host: &Host) -> Folders {
        Folders { data_root: host.data_root.clone(), state_dir: host.state_dir.clone() }
    }
}

/// Runs until it is aborted.
pub(crate) async fn keep(member: Arc<Member>, folders: Folders) {
    let (mut roles, mut wishes) = (member.agent.role(), member.agent.tls());
    let mut renewal = renewal_of(&member.certificate.borrow());
    // Orders to renew, and to trust other roots, that were followed.
    let (mut followed, mut trusted) = (0, 0);
    loop {
        let wanted = *roles.borrow_and_update();
        let tls = wishes.borrow_and_update().clone();
        if tls.orders != followed {
            let digest = tls.root.as_deref().unwrap_or_default();
            if !member.certificate.borrow().is_signed_by(digest) {
                renewal = Duration::ZERO;
            }
            followed = tls.orders;
        }
        let conforms = conform(&member, &folders, wanted, &tls, (&mut renewal, &mut trusted)).await;
        let pause = match &conforms {
            Ok(()) => renewal.saturating_sub(now()).min(LONGEST_SLEEP),
            Err(error) => {
                tracing::warn!("the node is not yet what the swarm wants it to be: {error:#}");
                RETRY
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            changed = roles.changed() => if changed.is_err() { return },
            changed = wishes.changed() => if changed.is_err() { return },
            // What has just failed is tried again after the pause and not at once.
            () = lock_changes(&member), if conforms.is_ok() => {}
        }
    }
}

/// Until the cluster wants another lock than there is. The manager part is the present one, which may have
/// been started a moment ago.
async fn lock_changes(member: &Member) {
    if let Some(manager) = member.manager() {
        let mut versions = manager.store().watch();
        loop {
            let wanted = manager.unlock_key();
            if wanted.is_some_and(|wanted| wanted != member.unlock_key()) {
                return;
            }
            sleep(PACE).await;
            if versions.changed().await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// Locks key and store as the cluster wants it. In between, the node's key opens with the old unlock key
/// and with the new one: whichever the store needs after a crash opens both.
async fn relock(member: &Member, folders: &Folders, manager: &Manager) -> Result<()> {
    let present = member.unlock_key();
    let Some(wanted) = manager.other_lock(present.as_deref()).await? else { return Ok(()) };
    let certificate = member.certificate.borrow().clone();
    let dir = CertificateDir::new(&folders.data_root);
    let both = match (&present, &wanted) {
        (Some(present), Some(wanted)) => vec![KeyLock::of(present), KeyLock::of(wanted)],
        _ => Vec::new(),
    };
    dir.save_locked(&certificate, &both)?;
    manager.lock(wanted.as_deref()).await?;
    dir.save_locked(&certificate, &locks(wanted.as_deref()))?;
    tracing::info!(locked = wanted.is_some(), "the manager's lock has changed");
    member.set_unlock_key(wanted);
    Ok(())
}

fn locks(unlock_key: Option<&str>) -> Vec<KeyLock> {
    unlock_key.map(KeyLock::of).into_iter().collect()
}

async fn conform(
    member: &Member,
    folders: &Folders,
    wanted: Option<Role>,
    tls: &WantedTls,
    (renewal, trusted): (&mut Duration, &mut u64),
) -> Result<()> {
    let present = member.certificate.borrow().clone();
    // A renewal that is due brings the roots along, and what is told now may need the next certificate.
    if let Some(roots) = tls.trust.as_deref().filter(|_| now() < *renewal && *trusted != tls.trusts)
        && roots != present.trust().pem()
    {
        trust(member, folders, &present, roots)?;
    }
    // Once: what was told before a renewal is older than the roots that came with it.
    *trusted = tls.trusts;
    let present = member.certificate.borrow().clone();
    let other_role = wanted.is_some_and(|role| role != present.identity().role);
    if other_role || now() >= *renewal {
        let renewed = renew(&known(member), &present).await.context("renew the certificate")?;
        tracing::info!(role = ?renewed.identity().role, "the certificate was renewed");
        *renewal = renewal_of(&renewed);
        put_in_force(member, folders, renewed)?;
    }
    let certificate = NodeCertificate::clone(&member.certificate.borrow());
    match (certificate.identity().role, member.manager()) {
        (Role::Manager, None) => {
            let config = ManagerConfig {
                state_dir: folders.state_dir.clone(),
                listen: member.listen(),
                advertise: member.record.advertise,
                unlock_key: member.unlock_key(),
            };
            let manager = Manager::join(config, certificate, &known(member)).await?;
            tracing::info!("the node is a manager now");
            member.set_manager(Some(manager.clone()));
            relock(member, folders, &manager).await?;
        }
        (Role::Worker, Some(manager)) => {
            member.set_manager(None);
            manager.shutdown().await;
            remove_store(&folders.state_dir)?;
            member.set_unlock_key(None);
            tracing::info!("the node is a worker now");
        }
        (Role::Manager, Some(manager)) => relock(member, folders, &manager).await?,
        (Role::Worker, None) => {}
    }
    Ok(())
}

/// Trusts other roots than before, from the next connection on.
fn trust(member: &Member, folders: &Folders, present: &NodeCertificate, roots: &str) -> Result<()> {
    let roots = Trust::from_pem(roots).context("read the roots to trust")?;
    let digests: Vec<String> = roots.digests().iter().map(ToString::to_string).collect();
    let trusting = present.trusting(roots).with_context(|| {
        format!("trust {} alone: this node's certificate is by another root", digests.join(" and "))
    })?;
    put_in_force(member, folders, trusting)?;
    tracing::info!(roots = digests.join(" "), "the node trusts other roots now");
    Ok(())
}

/// Saves a certificate and uses it for all connections from now on.
fn put_in_force(member: &Member, folders: &Folders, certificate: NodeCertificate) -> Result<()> {
    // Workers are not locked: they know nothing that their containers do not.
    let key = member.unlock_key().filter(|_| certificate.identity().role == Role::Manager);
    let dir = CertificateDir::new(&folders.data_root);
    dir.save_locked(&certificate, &locks(key.as_deref()))?;
    if let Some(manager) = member.manager() {
        manager.renewed(certificate.clone())?;
    }
    member.certificate.send_replace(Arc::new(certificate));
    Ok(())
}

/// Other managers first: this node's own may just be starting.
fn known(member: &Member) -> Vec<SocketAddr> {
    let own = member.record.advertise;
    let mut all: Vec<SocketAddr> = member.agent.managers().into_iter().map(|(_, a)| a).collect();
    all.sort_by_key(|addr| *addr == own);
    all
}

/// Removes what a manager keeps.
pub(crate) fn remove_store(state_dir: &Path) -> Result<()> {
    let raft = state_dir.join("raft");
    match std::fs::remove_dir_all(&raft) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", raft.display()))
        }
        _ => Ok(()),
    }
}

/// When to renew a certificate, since the epoch.
fn renewal_of(certificate: &NodeCertificate) -> Duration {
    let at = renewal_at(&certificate.identity().node_id, certificate.validity());
    Duration::from_nanos(u64::try_from(at.0).unwrap_or(0))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
