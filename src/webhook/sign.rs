//! The signature of a request, by Standard Webhooks (version 1, symmetric).
//!
//! HMAC-SHA256 over `id.timestamp.body`; the receiver compares in constant time, and refuses a timestamp that is far from its clock.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::WebhookSecret;

/// The value of `webhook-signature`: one signature for each secret, with blanks between.
pub(super) fn signatures(secrets: &[WebhookSecret], id: &str, timestamp_s: u64, body: &[u8]) -> String {
    let timestamp = timestamp_s.to_string();
    let one = |secret: &WebhookSecret| {
        let tag = hmac_sha256(&secret.key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
        format!("v1,{}", STANDARD.encode(tag))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// HMAC-SHA256 (RFC 2104) over the parts, one behind the other.
pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_webhook_secrets;

    /// The example of Standard Webhooks' own libraries; the value was also computed with Python's hmac.
    #[test]
    fn the_known_vector() {
        let secrets = parse_webhook_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let got = signatures(&secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(got, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = [secrets.clone(), secrets].concat();
        assert_eq!(signatures(&two, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body), format!("{got} {got}"));
    }
}
