//! The score of a spam filter: rspamd (HTTP `/checkv2`) or SpamAssassin (spamd's `SYMBOLS`).

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::report::{Finding, error, info, warning};
use crate::config::Check;
use crate::seam::net::TcpStream;

/// How long a filter may take: it asks block lists by itself.
const FILTER_TIME_MAX: Duration = Duration::from_secs(8);

/// The largest answer of a filter that is read.
const ANSWER_MAX: usize = 256 << 10;

/// The most symbols of a filter that are told.
const SYMBOLS_MAX: usize = 15;

/// What a filter said.
#[derive(Clone, PartialEq, Debug)]
pub struct SpamScore {
    /// Which filter.
    pub filter: &'static str,
    /// The score.
    pub score: f64,
    /// From which score on the filter itself calls it spam.
    pub required: f64,
    /// The rules that matched, the heaviest first where weights are known.
    pub symbols: Vec<String>,
}

/// Why a filter did not say anything.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{filter} at {address}: {reason}")]
pub struct SpamError {
    /// Which filter.
    pub filter: &'static str,
    /// Where.
    pub address: String,
    /// What happened.
    pub reason: String,
}

/// Who scores.
pub trait SpamFilter: Sync {
    /// The scores of a message by all filters that there are; none where none is configured.
    fn score(&self, message: &[u8]) -> impl Future<Output = Vec<Result<SpamScore, SpamError>>> + Send;
}

/// The filters of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Scorers<'a>(pub &'a Check);

impl SpamFilter for Scorers<'_> {
    async fn score(&self, message: &[u8]) -> Vec<Result<SpamScore, SpamError>> {
        let rspamd = async {
            let url = self.0.rspamd.as_deref()?;
            Some(within("rspamd", url, rspamd(url, message)).await)
        };
        let spamassassin = async {
            let address = self.0.spamassassin.as_deref()?;
            Some(within("SpamAssassin", address, spamassassin(address, message)).await)
        };
        let (rspamd, spamassassin) = tokio::join!(rspamd, spamassassin);
        rspamd.into_iter().chain(spamassassin).collect()
    }
}

async fn within(
    filter: &'static str,
    address: &str,
    score: impl Future<Output = Result<SpamScore, String>>,
) -> Result<SpamScore, SpamError> {
    let result = tokio::time::timeout(FILTER_TIME_MAX, score).await;
    let result = result.unwrap_or_else(|_| Err(format!("no answer in {} s", FILTER_TIME_MAX.as_secs())));
    result.map_err(|reason| SpamError { filter, address: address.to_owned(), reason })
}

#[derive(Deserialize)]
struct RspamdAnswer {
    score: f64,
    required_score: f64,
    #[serde(default)]
    symbols: std::collections::BTreeMap<String, RspamdSymbol>,
}

#[derive(Deserialize)]
struct RspamdSymbol {
    #[serde(default)]
    score: f64,
}

async fn rspamd(url: &str, message: &[u8]) -> Result<SpamScore, String> {
    let uri: hyper::Uri = url.parse().map_err(|_| "not a URL".to_owned())?;
    let authority = uri.authority().ok_or("a URL without a host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.map_err(|e| e.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let request = hyper::Request::post(format!("{}/checkv2", uri.path().trim_end_matches('/')))
        .header(hyper::header::HOST, authority.as_str())
        .body(Full::new(Bytes::copy_from_slice(message)))
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(format!("HTTP status {}", response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|e| e.to_string())?;
        Ok(body.to_bytes())
    };
    let mut exchange = std::pin::pin!(exchange);
    let body = tokio::select! {
        body = &mut exchange => body?,
        // The connection ends when all is read; what is read is then there.
        ended = connection => match ended {
            Ok(()) => exchange.await?,
            Err(e) => return Err(e.to_string()),
        },
    };
    let answer: RspamdAnswer = serde_json::from_slice(&body).map_err(|e| format!("an answer that is none: {e}"))?;
    let mut symbols: Vec<_> = answer.symbols.into_iter().filter(|(_, symbol)| symbol.score > 0.0).collect();
    symbols.sort_by(|a, b| b.1.score.total_cmp(&a.1.score));
    let symbols = symbols.into_iter().map(|(name, symbol)| format!("{name} ({:.1})", symbol.score)).collect();
    Ok(SpamScore { filter: "rspamd", score: answer.score, required: answer.required_score, symbols })
}

async fn spamassassin(address: &str, message: &[u8]) -> Result<SpamScore, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let head = format!("SYMBOLS SPAMC/1.5\r\nContent-length: {}\r\n\r\n", message.len());
    let talk = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(message).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX as u64).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = talk.await.map_err(|e| e.to_string())?;
    parse_spamd(&String::from_utf8_lossy(&answer))
}

/// `SPAMD/1.1 0 EX_OK`, fields, an empty line, the names of the rules with commas between them.
fn parse_spamd(answer: &str) -> Result<SpamScore, String> {
    let bad = || format!("an answer that is none: {:?}", answer.lines().next().unwrap_or(""));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let mut lines = head.lines();
    let mut status = lines.next().unwrap_or("").split_ascii_whitespace();
    if !status.next().is_some_and(|version| version.starts_with("SPAMD/")) || status.next() != Some("0") {
        return Err(bad());
    }
    // `Spam: True ; 6.1 / 5.0`
    let spam = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("spam"));
    let numbers = spam.and_then(|(_, value)| value.split_once(';')).and_then(|(_, numbers)| numbers.split_once('/'));
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let (score, required) = numbers.and_then(|(score, of)| Some((number(score)?, number(of)?))).ok_or_else(bad)?;
    let symbols = body.split([',', '\r', '\n']).map(str::trim).filter(|name| !name.is_empty());
    Ok(SpamScore { filter: "SpamAssassin", score, required, symbols: symbols.map(str::to_owned).collect() })
}

/// Scores the first sample.
pub(super) async fn check(filter: &impl SpamFilter, message: Option<&[u8]>, threshold: Option<f64>) -> Vec<Finding> {
    let Some(message) = message else { return Vec::new() };
    let scores = filter.score(message).await;
    scores.into_iter().map(|score| judge(score, threshold)).collect()
}

fn judge(score: Result<SpamScore, SpamError>, threshold: Option<f64>) -> Finding {
    let score = match score {
        Ok(score) => score,
        Err(e) => return warning("spam-unreachable", e.to_string(), "Is it running, and is [check] right?"),
    };
    let limit = threshold.unwrap_or(score.required);
    let title = format!("{} gives {:.1} of {limit:.1} points", score.filter, score.score);
    let fix = "Look at the rules that matched, the heaviest first.";
    let finding = if score.score >= limit {
        error("spam-score", title, fix)
    } else if score.score >= limit * 0.7 {
        warning("spam-score", title, fix)
    } else {
        info("spam-score", title, "")
    };
    finding.details(score.symbols.into_iter().take(SYMBOLS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_spamd_are_read() {
        let answer =
            "SPAMD/1.1 0 EX_OK\r\nContent-length: 20\r\nSpam: True ; 6.1 / 5.0\r\n\r\nHTML_ONLY,MISSING_MID\r\n";
        let score = parse_spamd(answer).expect("valid");
        assert_eq!((score.score, score.required), (6.1, 5.0));
        assert_eq!(score.symbols, ["HTML_ONLY", "MISSING_MID"]);
        for bad in
            ["", "HTTP/1.1 200 OK\r\n\r\n", "SPAMD/1.1 74 EX_IOERR\r\n\r\n", "SPAMD/1.1 0 EX_OK\r\nSpam: x\r\n\r\n"]
        {
            assert!(parse_spamd(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_score_is_judged_by_the_threshold() {
        let score = |score| Ok(SpamScore { filter: "rspamd", score, required: 15.0, symbols: vec!["X (1.0)".into()] });
        use crate::campaign::ports::Severity::{Error, Info, Warning};
        for (points, threshold, want) in [
            (1.0, None, Info),
            (11.0, None, Warning),
            (15.0, None, Error),
            (5.0, Some(5.0), Error),
            (20.0, Some(99.0), Info),
        ] {
            assert_eq!(judge(score(points), threshold).severity, want, "{points} {threshold:?}");
        }
    }
}
