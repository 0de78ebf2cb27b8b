//! DNS: what the delivery engine asks, whoever answers.
