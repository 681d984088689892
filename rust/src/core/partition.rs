//! The hash that divides streams into partitions, the same on every backend and in every process.

/// Byte-wise table of the reflected CRC-32 polynomial.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Returns the CRC-32 (ISO 3309, as zlib's `crc32`) of a stream id in UTF-8. Databases store it: it never changes.
/// `stores/partition.py` is the same function for the other backends.
pub fn partition_hash(stream_id: &str) -> u32 {
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize];
    !stream_id.as_bytes().iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_standard_crc_32() {
        assert_eq!(partition_hash("123456789"), 0xcbf4_3926);
        assert_eq!(partition_hash(""), 0);
    }

    #[test]
    fn streams_spread_evenly() {
        let mut counts = [0u32; 7];
        for n in 0..7000 {
            counts[(partition_hash(&format!("order-{n}")) % 7) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
