//! The keys for ZeroMQ of a cluster: all of them follow from one secret, which its controller makes once and keeps.
//!
//! Which keys a configuration has is a number in it, so another number is how they are changed, and going back to a
//! configuration is going back to its keys. From the keys of one number nobody finds those of another.

use std::fmt;
use std::path::Path;

use curve25519_dalek::montgomery::MontgomeryPoint;
use ring::hmac;

use super::{TrustError, files};
use crate::model::curve::{CurveKeys, KeyPair, PublicKey, SecretKey};

/// The file that the secret is in.
const FILE: &str = "zeromq.key";
/// The longest such file that is read, in bytes.
const LONGEST: u64 = 4096;

/// What all keys of a cluster follow from.
#[derive(Clone, PartialEq, Eq)]
pub struct CurveRoot([u8; 32]);

impl CurveRoot {
    /// The secret that is kept in this directory; made at the first call.
    pub fn kept_in(directory: &Path) -> Result<Self, TrustError> {
        let path = directory.join(FILE);
        let (text, mode) = match files::read(&path, LONGEST) {
            Err(TrustError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let root = Self::random()?;
                let text: String = root.0.iter().map(|byte| format!("{byte:02x}")).collect();
                files::write(&path, format!("{text}\n").as_bytes(), 0o600)?;
                return Ok(root);
            }
            read => read?,
        };
        if mode & 0o077 != 0 {
            return Err(TrustError::Exposed { path, mode: mode & 0o7777 });
        }
        Self::written(&text).ok_or_else(|| TrustError::Damaged {
            path,
            why: "it is not 64 hexadecimal digits: move it away, and the next deployment gives all nodes new keys"
                .into(),
        })
    }

    fn random() -> Result<Self, TrustError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(TrustError::Random)?;
        Ok(Self(bytes))
    }

    fn written(text: &[u8]) -> Option<Self> {
        let digits = text.trim_ascii_end();
        let (pairs, rest) = digits.as_chunks::<2>();
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
        bytes.filter(|_| rest.is_empty())?.try_into().ok().map(Self)
    }

    /// The keys of that number.
    pub fn keys(&self, number: u32) -> CurveKeys {
        CurveKeys { server: self.pair("server", number), client: self.pair("client", number) }
    }

    fn pair(&self, whose: &str, number: u32) -> KeyPair {
        let what = format!("watchpost zeromq {whose} {number}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), what.as_bytes());
        let mut secret = [0; 32];
        secret.copy_from_slice(tag.as_ref()); // of SHA-256, so of this length
        KeyPair { public: public(&secret), secret: SecretKey(secret) }
    }
}

fn public(secret: &[u8; 32]) -> PublicKey {
    PublicKey(MontgomeryPoint::mul_base_clamped(*secret).to_bytes())
}

impl From<[u8; 32]> for CurveRoot {
    fn from(secret: [u8; 32]) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for CurveRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurveRoot(secret)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The two pairs that ZeroMQ's manual shows, and that its own tests use.
    #[test]
    fn public_keys_are_those_that_zeromq_has_for_its_secret_ones() {
        for (public, secret) in [
            ("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"),
            ("Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID", "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"),
        ] {
            let bytes = from_z85(secret);
            assert_eq!(SecretKey(bytes).z85(), secret);
            assert_eq!(super::public(&bytes).z85(), public);
        }
    }

    fn from_z85(text: &str) -> [u8; 32] {
        let digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
        let digit = |letter: &u8| digits.bytes().position(|digit| digit == *letter).unwrap() as u32;
        let block = |five: &[u8]| five.iter().fold(0, |number, letter| number * 85 + digit(letter)).to_be_bytes();
        text.as_bytes().chunks(5).flat_map(block).collect::<Vec<u8>>().try_into().unwrap()
    }

    #[test]
    fn keys_follow_from_the_secret_and_their_number_alone() {
        let [one, other] = [[1; 32], [2; 32]].map(CurveRoot::from);
        let keys = one.keys(1);
        assert_eq!(keys, one.clone().keys(1));
        let all = [keys.server, keys.client, one.keys(2).server, one.keys(2).client, other.keys(1).server];
        for (at, pair) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|before| before.secret != pair.secret && before.public != pair.public));
        }
    }

    #[test]
    fn the_secret_is_made_once_for_its_owner_alone_and_told_to_nobody() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(FILE);
        let made = CurveRoot::kept_in(home.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(CurveRoot::kept_in(home.path()).unwrap(), made);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() == 65 && format!("{made:?}") == "CurveRoot(secret)");
        for (wrong, mode, want) in [
            (text.replace('\n', "0\n"), 0o600, "is damaged: it is not 64 hexadecimal digits"),
            (text[..63].to_owned(), 0o600, "is damaged"),
            (text.replacen(&text[..1], "x", 1), 0o600, "is damaged"),
            (text.clone(), 0o640, "can be read by others (mode 640): run `chmod 600 "),
        ] {
            fs::write(&path, wrong).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = CurveRoot::kept_in(home.path()).unwrap_err().to_string();
            assert!(error.contains(want) && !error.contains(&text[1..60]), "{error}");
        }
    }
}
