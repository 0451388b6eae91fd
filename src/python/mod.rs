//! The Python boundary: arguments in, arrays out, the interpreter's lock released in between. No arithmetic.
//!
//! Functions here take all arguments by position; names, defaults and documentation are in
//! `python/softxent/functions.py`.

mod arguments;
mod arrays;
mod cross_entropy;
mod divergence;
mod dlpack;
mod errors;
mod evaluation;
mod grad_hess;
mod linear;
mod loss_call;
mod memory;
mod probabilities;
mod reading;
mod reducing;
mod results;
mod runtime;
mod shards;
mod tokens;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::cross_entropy::{cross_entropy, cross_entropy_with_grad};
    #[pymodule_export]
    use super::divergence::{divergence, divergence_with_grad};
    #[pymodule_export]
    use super::evaluation::evaluate;
    #[pymodule_export]
    use super::grad_hess::softmax_grad_hess;
    #[pymodule_export]
    use super::linear::{_linear_products, linear_cross_entropy, linear_cross_entropy_with_grad};
    #[pymodule_export]
    use super::memory::release_memory;
    #[pymodule_export]
    use super::probabilities::{log_softmax, logsumexp, softmax};
    #[pymodule_export]
    use super::runtime::{_set_thresholds, get_threads, runtime, set_threads};
    #[pymodule_export]
    use super::shards::{finish_cross_entropy, partial_cross_entropy, shard_grad};
    #[pymodule_export]
    use super::tokens::token_logprobs;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::runtime::start()
    }
}
