#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lexigram_events_fuzz::log::check(data));
