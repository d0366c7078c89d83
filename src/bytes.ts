const encoder = new TextEncoder();

/**
 * What a program may write, as bytes.
 *
 * @throws {TypeError} When it is neither bytes nor text.
 */
export function toBytes(data: Uint8Array | string): Uint8Array {
  if (typeof data === "string") return encoder.encode(data);
  if (data instanceof Uint8Array) return data;
  throw new TypeError(`data must be a Uint8Array or a string, got ${Object.prototype.toString.call(data)}`);
}
