//! Every way in which a call can fail, and the words for it.
//!
//! A message names the argument, what was expected and what came. Which Python exception an error becomes
//! is decided in `python/errors.rs`, variant by variant.

use std::fmt::{self, Display, Formatter};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A class id that is no column and not ignored.
    Class {
        /// The argument's name.
        argument: &'static str,
        /// Where it stands among the targets.
        position: Vec<usize>,
        /// What it is.
        class: i128,
        /// The number of columns.
        classes: usize,
    },
    /// An argument of the wrong shape, length or value.
    Value {
        /// The argument's name.
        argument: &'static str,
        /// What it may be.
        expected: String,
        /// What it was.
        got: String,
    },
    /// An argument of a type that is not taken.
    Type {
        /// The argument's name.
        argument: &'static str,
        /// What it may be, and what to do instead.
        expected: String,
        /// What it was.
        got: String,
    },
    /// An axis that the logits do not have.
    Axis {
        /// What was asked for.
        axis: isize,
        /// The number of axes there are.
        ndim: usize,
    },
    /// Every row is ignored, or there is none, and `on_empty="raise"`.
    Empty,
    /// No memory for something of this many bytes.
    Memory(usize),
    /// The caller asked to stop.
    Interrupted,
    /// A bug in this library.
    Panic(String),
}

impl Error {
    /// A wrong value.
    pub fn value(argument: &'static str, expected: impl Display, got: impl Display) -> Self {
        Self::Value { argument, expected: expected.to_string(), got: got.to_string() }
    }

    /// A wrong type.
    pub fn of_type(argument: &'static str, expected: impl Display, got: impl Display) -> Self {
        Self::Type { argument, expected: expected.to_string(), got: got.to_string() }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class { argument, position, class, classes } => {
                let indices: Vec<String> = position.iter().map(usize::to_string).collect();
                let place = if indices.is_empty() {
                    String::from(*argument)
                } else {
                    format!("{argument}[{}]", indices.join(", "))
                };
                write!(f, "{place} = {class} is outside [0, {classes})")
            }
            Self::Value { argument, expected, got } | Self::Type { argument, expected, got } => {
                write!(f, "{argument}: expected {expected}, got {got}")
            }
            Self::Axis { axis, ndim } => {
                write!(f, "axis {axis} is out of bounds for logits of {ndim} dimensions")
            }
            Self::Empty => f.write_str("targets: expected a row that is not ignored, got none"),
            Self::Memory(bytes) => write!(f, "no memory for {bytes} bytes"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Panic(what) => write!(f, "a bug in softxent, please report it: {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// An empty vector with room for `length` values.
pub fn reserve<T>(length: usize) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    match values.try_reserve_exact(length) {
        Ok(()) => Ok(values),
        Err(_) => Err(Error::Memory(length.saturating_mul(size_of::<T>()))),
    }
}

/// Values in a vector, or the error that there is no memory for them.
pub fn collect<T>(values: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>, Error> {
    let mut collected = reserve(values.len())?;
    collected.extend(values);
    Ok(collected)
}

/// A shape as NumPy prints it: `(4, 50257)`, `(5,)`, `()`.
pub fn shape(dimensions: &[usize]) -> String {
    match dimensions {
        [only] => format!("({only},)"),
        _ => {
            let parts: Vec<String> = dimensions.iter().map(usize::to_string).collect();
            format!("({})", parts.join(", "))
        }
    }
}
