//! Durable writing of a frame as one Parquet file.

use std::path::Path;

use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use polars::prelude::DataFrame;

use crate::error::{Error, Result};
use crate::frame::convert;
use crate::io::atomic;

/// Writes a frame as one durable Parquet file. The file is complete in the folder `tmp` before it gets its name.
pub(crate) fn write_parquet(tmp: &Path, target: &Path, frame: &DataFrame) -> Result<()> {
    let batch = convert::to_arrow(frame)?;
    let compression = match batch.num_rows() {
        // A run may have many small files. For these, the set-up of zstd takes longer than the compression: it runs for each
        // column, on every write and read.
        0..1024 => Compression::SNAPPY,
        _ => Compression::ZSTD(ZstdLevel::default()),
    };
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        // Numbers seldom repeat: a dictionary costs more than it saves.
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("uphill ", env!("CARGO_PKG_VERSION")).into());
    for field in batch.schema().fields() {
        let name = field.name().clone();
        properties = match field.data_type() {
            DataType::LargeUtf8 => properties.set_column_dictionary_enabled(vec![name].into(), true),
            // Vectors do not compress.
            DataType::FixedSizeList(inner, _) => {
                let path = ColumnPath::new(vec![name, "list".into(), inner.name().clone()]);
                properties.set_column_compression(path, Compression::UNCOMPRESSED)
            }
            _ => properties,
        };
    }
    let properties = properties.build();
    atomic::publish_file(tmp, target, |file| {
        let failed = |error: ParquetError| match error {
            ParquetError::External(source) => match source.downcast::<std::io::Error>() {
                Ok(cause) => Error::Io { path: target.into(), cause: *cause },
                Err(other) => Error::input(target, other.to_string()),
            },
            other => Error::input(target, other.to_string()),
        };
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(failed)?;
        writer.write(&batch).map_err(failed)?;
        writer.close().map_err(failed)?;
        Ok(())
    })
}
