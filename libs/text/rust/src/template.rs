//! Chat templates as transformers renders them, with bounds on work and output.

use std::io::Write;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;

use crate::{invalid, Failure, Outcome};

const NAME: &str = "chat";

pub struct Template {
    environment: Environment<'static>,
    source: String,
    output_bytes_max: usize,
}

impl Template {
    pub fn new(source: &str, fuel: u64, output_bytes_max: usize) -> Outcome<Template> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| Failure::Invalid(e.to_string()))?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(fuel));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        // The message quotes the template alone: nothing has been rendered yet.
        environment
            .add_template_owned(NAME, source.to_string())
            .map_err(|e| Failure::Invalid(e.to_string()))?;
        Ok(Template { environment, source: source.to_string(), output_bytes_max })
    }

    pub fn render(&self, context: &[u8]) -> Outcome<Vec<u8>> {
        let context: Value = serde_json::from_slice(context)
            .map_err(|e| Failure::Invalid(format!("context is not JSON at column {}", e.column())))?;
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|_| Failure::Invalid("no template".to_string()))?;
        let mut out = BoundedOutput { bytes: Vec::new(), bytes_max: self.output_bytes_max, full: false };
        match template.render_captured_to(context, &mut out) {
            Ok(_) => Ok(out.bytes),
            Err(_) if out.full => {
                Err(Failure::Limit(format!("output exceeds {} bytes", self.output_bytes_max)))
            }
            Err(error) => self.refuse(&error),
        }
    }

    /// An error's detail may quote a value, which may be prompt text. Only its kind and line are
    /// told, and what raise_exception said if the template holds it word for word.
    fn refuse(&self, error: &Error) -> Outcome<Vec<u8>> {
        if error.kind() == ErrorKind::OutOfFuel {
            return Err(Failure::Limit("the template did too much work".to_string()));
        }
        let detail = error.detail().unwrap_or("");
        if let Some(message) = detail.strip_prefix(RAISED) {
            if !message.is_empty() && self.source.contains(message) {
                return invalid(message);
            }
            return invalid("the template refuses these messages");
        }
        invalid(format!("{} (line {})", error.kind(), error.line().unwrap_or(0)))
    }
}

const RAISED: &str = "raised: ";

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
}

/// Python's json.dumps(value, ensure_ascii=False, indent=indent), which templates are written for.
fn to_json(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let _ = kwargs.get::<Option<bool>>("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonStyle)),
    };
    written.map_err(|_| Error::new(ErrorKind::BadSerialization, "cannot serialise to JSON"))?;
    let text = String::from_utf8(out)
        .map_err(|_| Error::new(ErrorKind::BadSerialization, "cannot serialise to JSON"))?;
    Ok(Value::from_safe_string(text))
}

/// ", " and ": " where serde_json's compact form has "," and ":".
struct PythonStyle;

impl serde_json::ser::Formatter for PythonStyle {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

struct BoundedOutput {
    bytes: Vec<u8>,
    bytes_max: usize,
    full: bool,
}

impl Write for BoundedOutput {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if data.len() > self.bytes_max - self.bytes.len() {
            self.full = true;
            return Err(std::io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
