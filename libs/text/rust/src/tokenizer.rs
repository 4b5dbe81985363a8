//! A byte-level BPE tokenizer that can also read control-token text as plain text.

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;
use tokenizers::tokenizer::{Encoding, Tokenizer as HfTokenizer};

use crate::{invalid, Failure, Outcome};

/// No published vocabulary comes near; a larger id in a file would size our table.
const VOCAB_SIZE_MAX: u32 = 4_000_000;

pub enum Mode {
    WithAddedTokens,
    PlainText,
    Guarded(char),
}

#[derive(Clone, Default)]
struct Token {
    bytes: Vec<u8>,
    present: bool,
    added: bool,
}

pub struct Tokenizer {
    full: HfTokenizer,
    /// The same model without added tokens: no text can produce one.
    plain: HfTokenizer,
    tokens: Vec<Token>,
    added_matcher: AhoCorasick,
    added_texts: Vec<String>,
    /// First characters of added tokens, sorted.
    added_firsts: Vec<char>,
    added_ids: Vec<u32>,
    unknown_id: Option<u32>,
}

impl Tokenizer {
    pub fn from_json(json: &[u8]) -> Outcome<Tokenizer> {
        let document: Value = serde_json::from_slice(json)
            .map_err(|e| Failure::Invalid(format!("not JSON: {e}")))?;
        if !is_byte_level(&document["decoder"]) {
            return invalid("only byte-level tokenizers are served: the decoder is not ByteLevel");
        }
        let mut full = HfTokenizer::from_bytes(json)
            .map_err(|e| Failure::Invalid(format!("not a tokenizer: {e}")))?;
        // Truncating or padding a prompt is never what a caller of ours asked for.
        full.with_truncation(None).map_err(|e| Failure::Invalid(e.to_string()))?;
        full.with_padding(None);
        let plain = without_added_tokens(&full)?;

        let (added_ids, added_texts): (Vec<u32>, Vec<String>) = full
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| !token.content.is_empty())
            .map(|(id, token)| (id, token.content))
            .unzip();
        let added_matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&added_texts)
            .map_err(|e| Failure::Invalid(format!("added tokens: {e}")))?;
        let mut added_firsts: Vec<char> = added_texts.iter().filter_map(|t| t.chars().next()).collect();
        added_firsts.sort_unstable();
        added_firsts.dedup();
        let unknown_id = document["model"]["unk_token"].as_str().and_then(|t| full.token_to_id(t));
        let tokens = token_table(&full)?;
        Ok(Tokenizer { full, plain, tokens, added_matcher, added_texts, added_firsts, added_ids, unknown_id })
    }

    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let token = self.tokens.get(id as usize)?;
        token.present.then_some(token.bytes.as_slice())
    }

    pub fn is_added(&self, id: u32) -> bool {
        self.tokens.get(id as usize).is_some_and(|token| token.added)
    }

    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.full.token_to_id(token)
    }

    pub fn encode(&self, text: &str, mode: Mode, add_special: bool) -> Outcome<Vec<u32>> {
        match mode {
            Mode::WithAddedTokens => {
                let encoding = self.full.encode_fast(text, add_special).map_err(encode_failure)?;
                Ok(encoding.get_ids().to_vec())
            }
            Mode::PlainText => {
                let ids = self.encode_plain(text)?;
                self.with_special(ids, add_special)
            }
            Mode::Guarded(marker) => {
                let ids = self.encode_guarded(text, marker)?;
                self.with_special(ids, add_special)
            }
        }
    }

    /// Marks added-token text in the strings of a JSON document; see `sy_tokenizer_guard`.
    pub fn guard_json(&self, json: &str) -> Outcome<(String, Option<char>)> {
        let mut document: Value = serde_json::from_str(json)
            .map_err(|e| Failure::Invalid(format!("not JSON at column {}", e.column())))?;
        if !any_string(&document, &|text| self.needs_guard(text)) {
            return Ok((json.to_string(), None));
        }
        // Noncharacters: never assigned, never in a vocabulary, and seldom in a prompt.
        let unused = |c: &char| !any_string(&document, &|text| text.contains(*c));
        let Some(marker) = ('\u{fdd0}'..='\u{fdef}').find(unused) else {
            return invalid("text uses every noncharacter U+FDD0 to U+FDEF");
        };
        edit_strings(&mut document, false, &|text, is_word| {
            let wanted = if is_word { self.added_matcher.is_match(text) } else { self.needs_guard(text) };
            wanted.then(|| self.mark(text, marker))
        });
        let text = serde_json::to_string(&document).map_err(|e| Failure::Invalid(e.to_string()))?;
        Ok((text, Some(marker)))
    }

    /// Also true when the text ends in the beginning of an added token, which the template or the
    /// next message could complete.
    fn needs_guard(&self, text: &str) -> bool {
        self.added_matcher.is_match(text)
            || self.added_texts.iter().any(|added| ends_in_prefix_of(text, added))
    }

    /// One marker behind every character that begins an added token, one at the end. (A marker
    /// behind each match's first character alone would let an overlapping match through.)
    fn mark(&self, text: &str, marker: char) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            out.push(c);
            if self.added_firsts.binary_search(&c).is_ok() {
                out.push(marker);
            }
        }
        out.push(marker);
        out
    }

    fn encode_guarded(&self, text: &str, marker: char) -> Outcome<Vec<u32>> {
        let mut ids = Vec::new();
        let mut begin = 0;
        for hit in self.added_matcher.find_iter(text) {
            ids.extend(self.encode_plain(&without_marker(&text[begin..hit.start()], marker))?);
            ids.push(self.added_ids[hit.pattern().as_usize()]);
            begin = hit.end();
        }
        ids.extend(self.encode_plain(&without_marker(&text[begin..], marker))?);
        Ok(ids)
    }

    fn encode_plain(&self, text: &str) -> Outcome<Vec<u32>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.plain.encode_fast(text, false).map_err(encode_failure)?;
        let ids = encoding.get_ids();
        if ids.iter().any(|&id| self.is_added(id) && Some(id) != self.unknown_id) {
            return invalid("plain text maps to a control token of this vocabulary");
        }
        Ok(ids.to_vec())
    }

    fn with_special(&self, ids: Vec<u32>, add_special: bool) -> Outcome<Vec<u32>> {
        if !add_special {
            return Ok(ids);
        }
        let count = ids.len();
        let encoding = Encoding::new(
            ids,
            vec![0; count],
            vec![String::new(); count],
            vec![None; count],
            vec![(0, 0); count],
            vec![0; count],
            vec![1; count],
            vec![],
            Default::default(),
        );
        let encoding = self.full.post_process(encoding, None, true).map_err(encode_failure)?;
        Ok(encoding.get_ids().to_vec())
    }
}

fn encode_failure(_: tokenizers::Error) -> Failure {
    Failure::Invalid("the text cannot be encoded".to_string())
}

fn is_byte_level(decoder: &Value) -> bool {
    decoder["type"] == "ByteLevel"
        || decoder["decoders"]
            .as_array()
            .is_some_and(|parts| parts.len() == 1 && parts[0]["type"] == "ByteLevel")
}

fn without_added_tokens(full: &HfTokenizer) -> Outcome<HfTokenizer> {
    let mut plain = HfTokenizer::new(full.get_model().clone());
    plain
        .with_normalizer(full.get_normalizer().cloned())
        .map_err(|e| Failure::Invalid(format!("normalizer: {e}")))?;
    plain.with_pre_tokenizer(full.get_pre_tokenizer().cloned());
    Ok(plain)
}

fn token_table(full: &HfTokenizer) -> Outcome<Vec<Token>> {
    let added = full.get_added_tokens_decoder();
    let vocab = full.get_vocab(true);
    let id_max = vocab.values().copied().max().unwrap_or(0);
    if vocab.is_empty() || id_max >= VOCAB_SIZE_MAX {
        return invalid(format!("vocabulary of {} tokens with largest id {id_max}", vocab.len()));
    }
    let byte_of = byte_level_alphabet();
    let mut tokens = vec![Token::default(); id_max as usize + 1];
    for (text, id) in vocab {
        let is_added = added.contains_key(&id);
        let mapped = || text.chars().map(|c| byte_of.get(c as usize).copied().flatten()).collect();
        let bytes: Option<Vec<u8>> = if is_added { None } else { mapped() };
        tokens[id as usize] = Token {
            bytes: bytes.unwrap_or_else(|| text.into_bytes()),
            present: true,
            added: is_added,
        };
    }
    Ok(tokens)
}

/// The byte that each character of a byte-level vocabulary stands for (GPT-2's alphabet): printable
/// bytes stand for themselves, the others are U+0100 and up, in order.
fn byte_level_alphabet() -> Vec<Option<u8>> {
    let mut byte_of = vec![None; 0x200];
    let mut next = 0x100;
    for byte in 0..=255u8 {
        if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            byte_of[byte as usize] = Some(byte);
        } else {
            byte_of[next] = Some(byte);
            next += 1;
        }
    }
    byte_of
}

fn ends_in_prefix_of(text: &str, added: &str) -> bool {
    added.char_indices().skip(1).any(|(end, _)| text.ends_with(&added[..end]))
}

fn without_marker(text: &str, marker: char) -> String {
    text.replace(marker, "")
}

fn any_string(value: &Value, wanted: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => wanted(text),
        Value::Array(items) => items.iter().any(|item| any_string(item, wanted)),
        Value::Object(members) => {
            members.iter().any(|(name, item)| wanted(name) || any_string(item, wanted))
        }
        _ => false,
    }
}

/// Replaces every string and member name for which `edit(text, is_word)` has an answer. Words, which
/// templates compare with, are member names and the values of "role" and "type".
fn edit_strings(value: &mut Value, is_word: bool, edit: &dyn Fn(&str, bool) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(edited) = edit(text, is_word) {
                *text = edited;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| edit_strings(item, is_word, edit)),
        Value::Object(members) => {
            let edited = std::mem::take(members).into_iter().map(|(name, mut item)| {
                edit_strings(&mut item, name == "role" || name == "type", edit);
                (edit(&name, true).unwrap_or(name), item)
            });
            *members = edited.collect();
        }
        _ => {}
    }
}
