//! Waits for certificates to change on disk, and for their time to run out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Trust;
use crate::model::Timestamp;
use crate::notice::heed;

/// Because the wall clock may be set, it is asked again at least this often what has expired.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// A process that runs for long says this often that its certificate is due.
const REMINDER: Duration = Duration::from_secs(24 * 60 * 60);

impl Trust {
    /// Heeds what changes in the directory of the files at once, for as long as the future is polled; whatever links
    /// come and go looks at the files by itself. Reminds of a certificate that is due.
    pub async fn watch(self: Arc<Self>) {
        tokio::join!(self.heed_changes(), self.remind_every(REMINDER), self.heed_expiry());
    }

    async fn heed_changes(&self) {
        heed(|| self.directory(), || self.recheck()).await;
    }

    /// Ends each link when the certificate expires by which its peer began it: by then the peer has a new one, or should
    /// not be here.
    async fn heed_expiry(&self) {
        loop {
            let next = self.end_expired(Timestamp::now());
            let wait = next.map(|next| Duration::from_micros(next.0.saturating_sub(Timestamp::now().0)));
            // The wall clock may be set meanwhile, and a certificate names a whole second.
            let wait = wait.map_or(LOOK_EVERY, |wait| (wait + Duration::from_millis(1)).min(LOOK_EVERY));
            let _ = tokio::time::timeout(wait, self.fresh_link()).await;
        }
    }

    async fn remind_every(&self, interval: Duration) {
        loop {
            sleep(interval).await;
            self.warn_if_due(Timestamp::now());
        }
    }

    /// Where the files are.
    fn directory(&self) -> PathBuf {
        let parent = self.files().certificate.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use tracing_subscriber::fmt::MakeWriter;

    use super::super::{Authority, Part, TrustFiles};
    use super::*;
    use crate::model::InstanceName;

    const DAY: Duration = Duration::from_secs(86_400);

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn count(&self, what: &str) -> usize {
            String::from_utf8_lossy(&self.0.lock().unwrap()).matches(what).count()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[actix_rt::test]
    async fn a_process_that_runs_for_long_says_again_that_its_certificate_is_due() {
        let directory = tempfile::tempdir().unwrap();
        let named = |text| InstanceName::new(text).unwrap();
        let now = Timestamp::now();
        let then = Timestamp(now.0 - 9 * DAY.as_micros() as u64);
        let authority = Authority::create(&directory.path().join("pki"), &named("lab"), then, 30 * DAY).unwrap();
        let trust = directory.path().join("trust");
        authority.issue(Part::Agent, &named("a"), then, 10 * DAY).unwrap().write(&trust).unwrap();
        let log = Log::default();
        let writer = log.clone();
        let _default = tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(writer).finish());
        let trust = Trust::open(TrustFiles::in_directory(&trust), named("lab"), Part::Agent, named("a"), now).unwrap();
        let due = "the certificate of this process expires at";
        assert_eq!(log.count(due), 1, "at the start");
        let reminded = async {
            while log.count(due) < 3 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = trust.remind_every(Duration::from_millis(2)) => unreachable!("it has no end"),
            reminded = tokio::time::timeout(Duration::from_secs(20), reminded) => reminded.unwrap(),
        }
    }
}
