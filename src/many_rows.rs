//! The rows of one call that writes many, packed: as they go into the log, the write set and the memtable.
//! Called by the transaction's handle.
//!
//! 1. Rows ascend, one for each key: the last one given for it.
//! 2. A row that comes in order is copied once; if one does not, all are copied once more, into order.
//!
//! Crash: memory only.

use lockstone_base::TableId;
use lockstone_recovery::record::row_head;
use lockstone_storage::{PackedRows, RowPacker};

use crate::error::Result;
use crate::row_limits::{check_key, check_value};

/// Packs `rows` of `table`. Nothing has happened if one of them cannot be written.
pub(crate) fn pack<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    table: TableId,
    rows: impl IntoIterator<Item = (K, V)>,
) -> Result<PackedRows> {
    let head = table.0.to_be_bytes();
    let mut packer = RowPacker::default();
    let mut ascending = true;
    for (key, value) in rows {
        let (key, value) = (key.as_ref(), value.as_ref());
        check_key(key)?;
        check_value(value)?;
        let before = packer.last_row().and_then(|row| row.get(head.len()..));
        ascending = ascending && before.is_none_or(|before| before < key);
        let row_head = row_head(head.len() + key.len(), value.len());
        packer.put(&row_head, [&head, key], value);
    }
    let rows = packer.finish();
    Ok(if ascending { rows } else { in_order(rows) })
}

/// Rows that are not in order, or there more than once.
fn in_order(mut rows: PackedRows) -> PackedRows {
    rows.sort(|index| index as u64);
    let mut packer = RowPacker::default();
    for sheet in rows.sheets() {
        for index in sheet.rows {
            let row = rows.row(index).unwrap_or_default();
            let value = rows.value(index).unwrap_or_default();
            if sheet.shared.is_some() {
                packer.put(&row_head(row.len(), value.len()), [row, &[]], value);
            } else if let Some((row, value)) = rows.row_key(index).zip(rows.effect(index)) {
                // A large value stays where it is.
                packer.add_apart(&row, value.unwrap_or_default());
            }
        }
    }
    packer.finish()
}
