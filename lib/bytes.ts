/** Bytes in the unit that leaves at most four digits: 512 B, 3.2 MiB. */
export function formatBytes(bytes: number): string {
  let scaled = bytes;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (scaled < 1023.95) return `${unit === 'B' ? scaled : scaled.toFixed(1)} ${unit}`;
    scaled /= 1024;
  }
  return `${scaled.toFixed(1)} TiB`;
}
