//! Tests of what each refusal leads to.
