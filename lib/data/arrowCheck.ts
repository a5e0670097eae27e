/**
 * Whether the buffers of an Arrow column hold what its length and offsets promise. The reader itself trusts them: damage
 * would read as rows without end, or as parts of other rows.
 */
import { type Data, type DataType, Type } from 'apache-arrow';

/** @throws Error saying what does not fit, for a column of `length` rows or more */
export function checkColumn(name: string, data: Data, length: number): void {
  const expect = (isFine: boolean, what: string) => {
    if (!isFine) throw new Error(`column ${name} has ${what}`);
  };
  const { type, values, valueOffsets, nullBitmap, children } = data as Data<DataType> & {
    readonly values?: { readonly length: number };
    readonly valueOffsets?: Int32Array | BigInt64Array;
  };
  expect(data.length >= length, `${data.length} rows for ${length}`);
  expect(data.nullCount <= data.length, `${data.nullCount} nulls in ${data.length} rows`);
  if (data.nullCount > 0 && type.typeId !== Type.Null) {
    expect(nullBitmap.length * 8 >= data.length, 'too few bits that tell nulls');
  }
  const items = (count: number | undefined) => {
    // An empty column may come without offsets.
    if (data.length === 0) return;
    expect(valueOffsets !== undefined && valueOffsets.length > data.length, 'too few offsets');
    let last = valueOffsets![0]!;
    expect(last >= 0, 'offsets before its data');
    for (let i = 1; i <= data.length; i++) {
      const offset = valueOffsets![i]!;
      expect(offset >= last, 'offsets that go backwards');
      last = offset;
    }
    expect(last <= (count ?? 0), 'offsets beyond its data');
  };
  const child = (count: number) => checkColumn(name, children[0]!, count);
  switch (type.typeId) {
    case Type.Null:
      break;
    case Type.Bool:
      expect((values?.length ?? 0) * 8 >= data.length, 'too few bits');
      break;
    case Type.Utf8:
    case Type.LargeUtf8:
    case Type.Binary:
    case Type.LargeBinary:
      items(values?.length);
      break;
    case Type.List:
    case Type.LargeList:
    case Type.Map:
      child(0);
      items(children[0]!.length);
      break;
    case Type.FixedSizeList:
      child(data.length * (type as DataType & { readonly listSize: number }).listSize);
      break;
    case Type.Struct:
      for (const member of children) checkColumn(name, member, data.length);
      break;
    case Type.Dictionary: {
      expect((values?.length ?? 0) >= data.length, 'too few values');
      const { dictionary } = data;
      expect(dictionary !== undefined, 'no dictionary');
      if (values instanceof BigInt64Array || values instanceof BigUint64Array) {
        throw new Error(`column ${name} has a dictionary with 64-bit indices, which is not supported`);
      }
      for (const part of dictionary!.data) checkColumn(name, part, part.length);
      const indices = values as unknown as ArrayLike<number>;
      for (let i = 0; i < data.length; i++) {
        const isFine = !data.getValid(i) || (indices[i]! >= 0 && indices[i]! < dictionary!.length);
        expect(isFine, 'indices beyond its dictionary');
      }
      break;
    }
    case Type.Int:
    case Type.Float:
    case Type.Decimal:
    case Type.Date:
    case Type.Time:
    case Type.Timestamp:
    case Type.Duration:
    case Type.FixedSizeBinary:
      expect((values?.length ?? 0) >= data.length * data.stride, 'too few values');
      break;
    default:
      throw new Error(`column ${name} has the type ${type}, which is not supported`);
  }
}
