//! The C ABI of libs/text: tokenizers and minijinja behind plain structs and byte ranges.
//!
//! `libs/text/internal/text_ffi.h` declares the same functions by hand; change both together.
//! Rules of every entry point: inputs are borrowed for the call, outputs are owned buffers that the
//! caller gives back to `sy_bytes_free` or `sy_ids_free`, a panic becomes `SY_TEXT_INTERNAL`, and no
//! error text carries prompt text. Handles are immutable: any thread may use one at any time.

mod template;
mod tokenizer;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use template::Template;
use tokenizer::{Mode, Tokenizer};

/// What went wrong, as the C side sees it: 1 invalid input, 2 a limit, 3 our bug.
pub enum Failure {
    Invalid(String),
    Limit(String),
}

pub type Outcome<T> = Result<T, Failure>;

pub fn invalid<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Failure::Invalid(message.into()))
}

#[repr(C)]
pub struct SyBytes {
    data: *mut u8,
    size: usize,
    capacity: usize,
}

#[repr(C)]
pub struct SyIds {
    data: *mut u32,
    size: usize,
    capacity: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct SyView {
    data: *const u8,
    size: usize,
}

impl SyView {
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.size == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.data, self.size)
    }

    unsafe fn text<'a>(self) -> Outcome<&'a str> {
        std::str::from_utf8(self.bytes())
            .map_err(|e| Failure::Invalid(format!("invalid UTF-8 at byte {}", e.valid_up_to())))
    }
}

unsafe fn put_bytes(out: *mut SyBytes, bytes: Vec<u8>) {
    let mut bytes = std::mem::ManuallyDrop::new(bytes);
    *out = SyBytes { data: bytes.as_mut_ptr(), size: bytes.len(), capacity: bytes.capacity() };
}

unsafe fn put_ids(out: *mut SyIds, ids: Vec<u32>) {
    let mut ids = std::mem::ManuallyDrop::new(ids);
    *out = SyIds { data: ids.as_mut_ptr(), size: ids.len(), capacity: ids.capacity() };
}

/// Runs `body`; 0 or the failure's code, with its message in `error`.
unsafe fn guard(error: *mut SyBytes, body: impl FnOnce() -> Outcome<()>) -> i32 {
    // The default hook would print the panic's message, which may quote a prompt.
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let (code, message) = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return 0,
        Ok(Err(Failure::Invalid(message))) => (1, message),
        Ok(Err(Failure::Limit(message))) => (2, message),
        Err(_) => (3, "panic in the text crate".to_string()),
    };
    put_bytes(error, message.into_bytes());
    code
}

#[no_mangle]
pub unsafe extern "C" fn sy_bytes_free(bytes: SyBytes) {
    if !bytes.data.is_null() {
        drop(Vec::from_raw_parts(bytes.data, bytes.size, bytes.capacity));
    }
}

#[no_mangle]
pub unsafe extern "C" fn sy_ids_free(ids: SyIds) {
    if !ids.data.is_null() {
        drop(Vec::from_raw_parts(ids.data, ids.size, ids.capacity));
    }
}

/// `json` is the content of a tokenizer.json file.
#[no_mangle]
pub unsafe extern "C" fn sy_tokenizer_new(
    json: SyView,
    out: *mut *mut Tokenizer,
    error: *mut SyBytes,
) -> i32 {
    guard(error, || {
        *out = Box::into_raw(Box::new(Tokenizer::from_json(json.bytes())?));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn sy_tokenizer_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

#[no_mangle]
pub unsafe extern "C" fn sy_tokenizer_vocab_size(tokenizer: *const Tokenizer) -> usize {
    (*tokenizer).vocab_size()
}

/// The bytes of token `id`, alive as long as the tokenizer. 0: no such id, 1: a text token, 2: an added token.
#[no_mangle]
pub unsafe extern "C" fn sy_tokenizer_token(
    tokenizer: *const Tokenizer,
    id: u32,
    out: *mut SyView,
) -> i32 {
    let tokenizer = &*tokenizer;
    let Some(bytes) = tokenizer.token_bytes(id) else {
        return 0;
    };
    *out = SyView { data: bytes.as_ptr(), size: bytes.len() };
    if tokenizer.is_added(id) { 2 } else { 1 }
}

/// The id of the token whose vocabulary string is `token`, or -1.
#[no_mangle]
pub unsafe extern "C" fn sy_tokenizer_id_of(tokenizer: *const Tokenizer, token: SyView) -> i64 {
    let tokenizer = &*tokenizer;
    let lookup = || token.text().ok().and_then(|text| tokenizer.id_of(text));
    catch_unwind(AssertUnwindSafe(lookup)).ok().flatten().map_or(-1, i64::from)
}

/// `mode` 0: added tokens in the text match; 1: all of it is plain text; 2: added tokens match, and
/// `marker` (a code point) is taken out of the text after it has kept them from matching.
#[no_mangle]
pub unsafe extern "C" fn sy_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: SyView,
    mode: i32,
    marker: u32,
    add_special: bool,
    out: *mut SyIds,
    error: *mut SyBytes,
) -> i32 {
    guard(error, || {
        let mode = match (mode, char::from_u32(marker)) {
            (0, _) => Mode::WithAddedTokens,
            (1, _) => Mode::PlainText,
            (2, Some(marker)) => Mode::Guarded(marker),
            _ => return invalid("unknown encode mode"),
        };
        put_ids(out, (*tokenizer).encode(text.text()?, mode, add_special)?);
        Ok(())
    })
}

/// Puts a marker code point inside every added-token text that a string of `json` holds. `marker` is
/// 0 when nothing had to change; `out` is then the same document.
#[no_mangle]
pub unsafe extern "C" fn sy_tokenizer_guard(
    tokenizer: *const Tokenizer,
    json: SyView,
    out: *mut SyBytes,
    marker: *mut u32,
    error: *mut SyBytes,
) -> i32 {
    guard(error, || {
        let (text, used) = (*tokenizer).guard_json(json.text()?)?;
        put_bytes(out, text.into_bytes());
        *marker = used.map_or(0, u32::from);
        Ok(())
    })
}

/// `fuel` bounds the instructions of one render, `output_bytes_max` its output.
#[no_mangle]
pub unsafe extern "C" fn sy_template_new(
    source: SyView,
    fuel: u64,
    output_bytes_max: usize,
    out: *mut *mut Template,
    error: *mut SyBytes,
) -> i32 {
    guard(error, || {
        let template = Template::new(source.text()?, fuel, output_bytes_max)?;
        *out = Box::into_raw(Box::new(template));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn sy_template_free(template: *mut Template) {
    if !template.is_null() {
        drop(Box::from_raw(template));
    }
}

/// `context` is a JSON object whose members are the template's variables.
#[no_mangle]
pub unsafe extern "C" fn sy_template_render(
    template: *const Template,
    context: SyView,
    out: *mut SyBytes,
    error: *mut SyBytes,
) -> i32 {
    guard(error, || {
        put_bytes(out, (*template).render(context.bytes())?);
        Ok(())
    })
}
