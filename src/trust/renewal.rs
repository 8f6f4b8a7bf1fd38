//! A process has its own certificate renewed, well before it expires.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Certificate, Request, Trust, TrustError, request};
use crate::model::Timestamp;

/// The wall clock may be set, so that it is looked at again this often.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The first and the longest pause after a failure, where the certificate leaves the time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// No pause is shorter.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// Keeps the certificate renewed for as long as the future is polled. `ask` brings a request to whoever may grant it and
/// returns the certificate, or why there is none; it may take its time, and is asked the same again after that.
pub async fn keep_renewed(trust: Arc<Trust>, ask: impl AsyncFn(Vec<u8>) -> Result<Vec<u8>, String>) {
    let mut failures = 0;
    loop {
        let certificate = trust.credentials().certificate.clone();
        let now = Timestamp::now();
        if let Some(wait) = until_due(&certificate, now) {
            sleep(wait).await;
            continue;
        }
        // Whoever does not answer is asked again, since it may be another by then.
        let patience =
            if certificate.remaining(now).is_some() { pause(u32::MAX, &certificate, now) } else { LONGEST_PAUSE };
        let renewed = timeout(patience.max(Duration::from_secs(1)), renew(&trust, &ask)).await;
        let why = match renewed {
            Ok(Ok(fresh)) if !fresh.is_due(Timestamp::now()) => {
                info!(until = %fresh.not_after, "the certificate of this process was renewed");
                failures = 0;
                continue;
            }
            Ok(Ok(fresh)) => {
                format!("the new one is good until {} and no longer, as the authority itself", fresh.not_after)
            }
            Ok(Err(why)) => why,
            Err(_) => "nobody has answered yet".to_owned(),
        };
        warn!("the certificate of this process expires at {}, and is not renewed yet: {why}", certificate.not_after);
        sleep(pause(failures, &certificate, Timestamp::now())).await;
        failures = failures.saturating_add(1);
    }
}

/// How long until it is to be looked at again; `None` once it is due.
fn until_due(certificate: &Certificate, now: Timestamp) -> Option<Duration> {
    let wait = certificate.due_at().0.checked_sub(now.0).map(Duration::from_micros)?;
    Some((wait + Duration::from_millis(1)).min(LOOK_EVERY))
}

/// How long to wait after so many failures: twice as long each time, and so that there are several attempts in the time
/// that is left.
fn pause(failures: u32, certificate: &Certificate, now: Timestamp) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE);
    let left = certificate.remaining(now).unwrap_or(LONGEST_PAUSE);
    doubled.min(left / 10).max(SHORTEST_PAUSE)
}

async fn renew(
    trust: &Arc<Trust>,
    ask: impl AsyncFn(Vec<u8>) -> Result<Vec<u8>, String>,
) -> Result<Certificate, String> {
    let request = on_the_disk(trust, Trust::request).await?;
    let certificate = ask(request.der().to_owned()).await?;
    on_the_disk(trust, move |trust| trust.take(&CertificateDer::from(certificate))).await
}

/// Nobody else waits for the disk.
async fn on_the_disk<T: Send + 'static>(
    trust: &Arc<Trust>,
    work: impl FnOnce(&Trust) -> Result<T, TrustError> + Send + 'static,
) -> Result<T, String> {
    let trust = Arc::clone(trust);
    let done = actix_rt::task::spawn_blocking(move || work(&trust)).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

impl Trust {
    /// A request for the next certificate of this process, whose key is on the disk. It stays the same until it was granted.
    fn request(&self) -> Result<Request, TrustError> {
        Request::make(self.identity(), &request::key_in(&self.files().next_key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, Part};
    use super::*;
    use crate::model::InstanceName;

    const DAY: Duration = Duration::from_secs(86_400);

    fn certificate(from: Duration, until: Duration) -> Certificate {
        let named = |text| InstanceName::new(text).unwrap();
        let identity = Identity { cluster: named("lab"), part: Part::Agent, name: named("a") };
        let at = |time: Duration| Timestamp(time.as_micros() as u64);
        Certificate { identity, hosts: Vec::new(), serial: "01".into(), not_before: at(from), not_after: at(until) }
    }

    #[test]
    fn it_is_renewed_when_a_third_of_its_time_is_left_and_looked_at_daily() {
        let year = certificate(Duration::ZERO, 300 * DAY);
        let at = |days: u64| Timestamp((DAY * days as u32).as_micros() as u64);
        assert_eq!(until_due(&year, at(0)), Some(LOOK_EVERY));
        assert_eq!(until_due(&year, at(200)), Some(Duration::from_millis(1)));
        assert_eq!(until_due(&year, at(201)), None);
        assert_eq!(until_due(&year, at(301)), None);
    }

    #[test]
    fn failures_are_spaced_and_leave_several_attempts() {
        let year = certificate(Duration::ZERO, 300 * DAY);
        let due = Timestamp((200 * DAY).as_micros() as u64);
        let pauses = [0, 1, 2, 5, 6, 40, u32::MAX].map(|failures| pause(failures, &year, due).as_secs());
        assert_eq!(pauses, [60, 120, 240, 1920, 3600, 3600, 3600]);
        let short = certificate(Duration::ZERO, Duration::from_secs(30));
        let at = |seconds: u64| Timestamp(seconds * 1_000_000);
        assert_eq!(pause(9, &short, at(20)), Duration::from_secs(1));
        assert_eq!(pause(9, &short, at(30)), SHORTEST_PAUSE);
        assert_eq!(pause(0, &short, at(31)), FIRST_PAUSE, "expired, and somebody may mend it");
    }
}
