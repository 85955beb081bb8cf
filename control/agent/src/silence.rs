//! Whether a manager is there: it answers every beat.
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Returns when nothing was heard for longer than that may take, by what is known of it in the end. Says how long.
pub(crate) async fn silent(
    heard: watch::Receiver<Instant>,
    longest: impl Fn() -> Duration,
) -> Duration {
    loop {
        let last = *heard.borrow();
        sleep_until(last + longest()).await;
        let longest = longest();
        if *heard.borrow() == last && last.elapsed() >= longest {
            return longest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::time::{sleep, timeout};

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn who_says_nothing_is_silent_and_who_says_anything_is_not() {
        let heard = watch::Sender::new(Instant::now());
        let began = Instant::now();
        let speaks = async {
            for _ in 0..6 {
                sleep(50 * MS).await;
                heard.send_replace(Instant::now());
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = speaks => unreachable!(),
            after = silent(heard.subscribe(), || 200 * MS) => assert_eq!(after, 200 * MS),
        }
        assert!(began.elapsed() >= 500 * MS, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn one_of_which_more_patience_is_learnt_meanwhile_is_waited_for() {
        let heard = watch::Sender::new(Instant::now());
        let longest = AtomicU64::new(50);
        let told = || Duration::from_millis(longest.load(Ordering::Relaxed));
        let mut silence = std::pin::pin!(silent(heard.subscribe(), told));
        assert!(timeout(10 * MS, silence.as_mut()).await.is_err());
        longest.store(300, Ordering::Relaxed);
        assert!(timeout(100 * MS, silence.as_mut()).await.is_err());
        assert_eq!(silence.await, 300 * MS);
    }
}
