//! What is said to prove who we are: PLAIN (RFC 4616), SCRAM (RFC 5802, 7677) and OAUTHBEARER (RFC 7628).
//!
//! Written here, over the primitives that TLS has brought anyway. Kafka's servers take names and passwords as they are,
//! in UTF-8, so nothing is normalised (no SASLprep): a password that is not ASCII works as in Kafka's own clients.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom;
use ring::{digest, hmac, pbkdf2, rand};

use zeroize::Zeroizing;

use super::security::{Credentials, Mechanism, Secret};

/// Kafka allows 4,096 to 16,384 rounds. A server that asks for more than this wants to keep us busy.
const ITERATIONS_MAX: u32 = 1 << 20;
/// Fewer make the password cheap to guess for one who has read the exchange (RFC 5802 asks for these).
const ITERATIONS_MIN: u32 = 4096;
const NONCE_BYTES: usize = 24;
/// There is no channel binding in Kafka, and we act for no one else.
const GS2_HEADER: &str = "n,,";

type Result<T> = std::result::Result<T, String>;

/// What is said to the server: a password or a token may stand in it.
pub(super) type Message = Zeroizing<Vec<u8>>;

/// The parts in a row, without a copy of any of them on the way.
fn message(parts: &[&str]) -> Message {
    let mut message = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        message.extend_from_slice(part.as_bytes());
    }
    Zeroizing::new(message)
}

/// One authentication, from our side.
pub(super) struct Exchange(State);

enum State {
    /// The server's next word decides.
    Last,
    /// As `Last`; but the server may explain why it refuses, and wants to hear that we have read it.
    Bearer,
    ScramFirst(Scram),
    ScramFinal {
        server_signature: hmac::Tag,
    },
    Done,
}

struct Scram {
    rounds: pbkdf2::Algorithm,
    hmac: hmac::Algorithm,
    digest: &'static digest::Algorithm,
    password: Secret,
    nonce: String,
    first_bare: String,
}

impl Exchange {
    /// Begins; returns what is to be said first.
    pub(super) fn begin(mechanism: Mechanism, credentials: &Credentials) -> Result<(Exchange, Message)> {
        match (mechanism, credentials) {
            (Mechanism::OAuthBearer, Credentials::Token(token)) => {
                let token = token.reveal();
                // Anything else would end the field that it stands in.
                if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err("the token is empty, or has characters that no token has".to_owned());
                }
                Ok((Exchange(State::Bearer), message(&[GS2_HEADER, "\x01auth=Bearer ", token, "\x01\x01"])))
            }
            (Mechanism::Plain, Credentials::Password { username, password }) => {
                let password = password.reveal();
                if username.contains('\0') || password.contains('\0') {
                    return Err("PLAIN cannot carry a name or a password with a null byte".to_owned());
                }
                Ok((Exchange(State::Last), message(&["\0", username, "\0", password])))
            }
            (Mechanism::ScramSha256 | Mechanism::ScramSha512, Credentials::Password { username, password }) => {
                let mut nonce = [0; NONCE_BYTES];
                rand::SystemRandom::new()
                    .fill(&mut nonce)
                    .map_err(|_| "the system has no random numbers".to_owned())?;
                Ok(begin_scram(mechanism, username, password.clone(), BASE64.encode(nonce)))
            }
            _ => Err(format!("{} has other credentials", mechanism.name())),
        }
    }

    /// Takes what the server said, and returns what is to be answered; `None` at the end, where it has proved what it
    /// has to.
    pub(super) fn answer(&mut self, said: &[u8]) -> Result<Option<Message>> {
        match std::mem::replace(&mut self.0, State::Done) {
            State::Bearer if !said.is_empty() => {
                self.0 = State::Last;
                Ok(Some(message(&["\x01"])))
            }
            State::Last | State::Bearer => Ok(None),
            State::ScramFirst(scram) => {
                let (server_signature, proof) = scram.prove(text_of(said)?)?;
                self.0 = State::ScramFinal { server_signature };
                Ok(Some(message(&[&proof])))
            }
            State::ScramFinal { server_signature } => {
                let said = text_of(said)?;
                if let Some(why) = said.strip_prefix("e=") {
                    return Err(format!("it says {why:?}"));
                }
                let signature = said.split(',').next().and_then(|field| field.strip_prefix("v="));
                let signature = signature.and_then(|field| BASE64.decode(field).ok());
                if signature.is_none_or(|signature| !is_same(&signature, server_signature.as_ref())) {
                    return Err("it could not prove that it knows the password itself: it is not the server that it \
                                says it is"
                        .to_owned());
                }
                Ok(None)
            }
            State::Done => Err("it goes on after the end".to_owned()),
        }
    }
}

fn begin_scram(mechanism: Mechanism, username: &str, password: Secret, nonce: String) -> (Exchange, Message) {
    let (rounds, hmac, digest) = if mechanism == Mechanism::ScramSha256 {
        (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, &digest::SHA256)
    } else {
        (pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512, &digest::SHA512)
    };
    let name = username.replace('=', "=3D").replace(',', "=2C");
    let first_bare = format!("n={name},r={nonce}");
    let first = message(&[GS2_HEADER, &first_bare]);
    let scram = Scram { rounds, hmac, digest, password, nonce, first_bare };
    (Exchange(State::ScramFirst(scram)), first)
}

impl Scram {
    /// Proves that we know the password; returns what the server has to prove, and the message.
    fn prove(&self, server_first: &str) -> Result<(hmac::Tag, String)> {
        let mut fields = server_first.split(',');
        let mut field = |name: &str| {
            let field = fields.next().and_then(|field| field.strip_prefix(name));
            field.ok_or_else(|| "its first message is none of SCRAM".to_owned())
        };
        let (nonce, salt, iterations) = (field("r=")?, field("s=")?, field("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("its nonce does not begin with ours".to_owned());
        }
        let salt = BASE64.decode(salt).map_err(|_| "its salt is no base64".to_owned())?;
        let count = iterations.parse().ok().and_then(NonZeroU32::new);
        let Some(iterations) = count.filter(|count| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&count.get())) else {
            return Err(format!(
                "its iteration count is not one from {ITERATIONS_MIN} to {ITERATIONS_MAX}: nothing was proved to it"
            ));
        };

        let mut salted = Zeroizing::new(vec![0; self.digest.output_len()]);
        pbkdf2::derive(self.rounds, iterations, &salt, self.password.reveal().as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(self.hmac, key), text.as_bytes());
        let client_key = sign(&salted, "Client Key");
        let server_key = sign(&salted, "Server Key");
        let stored_key = digest::digest(self.digest, client_key.as_ref());

        let final_bare = format!("c={},r={nonce}", BASE64.encode(GS2_HEADER));
        let spoken = format!("{},{server_first},{final_bare}", self.first_bare);
        let signature = sign(stored_key.as_ref(), &spoken);
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        Ok((sign(server_key.as_ref(), &spoken), format!("{final_bare},p={}", BASE64.encode(proof))))
    }
}

fn text_of(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| "its message is no text".to_owned())
}

/// Takes as long no matter what differs.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Credentials {
        Credentials::Password { username: username.to_owned(), password: Secret::new(password) }
    }

    /// The example of RFC 7677, section 3.
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn rfc_7677() -> Exchange {
        let (exchange, first) =
            begin_scram(Mechanism::ScramSha256, "user", Secret::new("pencil"), "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(*first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        exchange
    }

    #[test]
    fn scram_says_what_the_standard_s_example_says_and_the_server_has_to_prove_itself() {
        let mut exchange = rfc_7677();
        let said = exchange.answer(SERVER_FIRST.as_bytes()).unwrap().unwrap();
        assert_eq!(
            std::str::from_utf8(&said).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(exchange.answer(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap().is_none());
        assert!(exchange.answer(b"").is_err(), "there is nothing behind the end");

        for wrong in ["v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "v=", "", "e=other-error"] {
            let mut exchange = rfc_7677();
            exchange.answer(SERVER_FIRST.as_bytes()).unwrap();
            assert!(exchange.answer(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_server_that_says_what_is_no_scram_is_refused() {
        for wrong in [
            "",
            "r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
        ] {
            assert!(rfc_7677().answer(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(rfc_7677().answer(&[0xFF]).is_err());
    }

    #[test]
    fn names_and_tokens_stay_in_their_fields() {
        let (_, first) = Exchange::begin(Mechanism::ScramSha512, &password("a=b,c", "x")).unwrap();
        assert!(first.starts_with(b"n,,n=a=3Db=2Cc,r="), "{}", String::from_utf8_lossy(&first));
        let (mut exchange, first) = Exchange::begin(Mechanism::Plain, &password("me", "geheim")).unwrap();
        assert_eq!(*first, b"\0me\0geheim");
        assert!(exchange.answer(b"").unwrap().is_none());
        assert!(Exchange::begin(Mechanism::Plain, &password("me", "a\0b")).is_err());
        let token = |text: &str| Credentials::Token(Secret::new(text));
        let (mut exchange, first) = Exchange::begin(Mechanism::OAuthBearer, &token("abc.def")).unwrap();
        assert_eq!(*first, b"n,,\x01auth=Bearer abc.def\x01\x01");
        assert_eq!(exchange.answer(b"{\"status\":\"invalid_token\"}").unwrap().unwrap().as_slice(), [1]);
        for wrong in ["", "a b", "a\x01b", "a\nb"] {
            assert!(Exchange::begin(Mechanism::OAuthBearer, &token(wrong)).is_err(), "{wrong:?}");
        }
    }
}
