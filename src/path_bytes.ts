/**
 * Paths of Unix sockets as the bytes that the system knows them by. A path is a string, and most are UTF-8; a byte that is part of no
 * UTF-8 stands in the string as one lone surrogate, U+DC80 for 0x80 to U+DCFF for 0xFF, as Python's `surrogateescape` (PEP 383) has it,
 * so that every path that the system reports can be given back to it.
 */

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A byte that is no UTF-8, as it stands in a path. */
const ESCAPED = /[\udc80-\udcff]/u;
/** A surrogate that stands for no byte. */
const UNPAIRED = /[\ud800-\udc7f\udd00-\udfff]/u;
const FIRST_ESCAPE = 0xdc00;

/** Whether a path has bytes that are no UTF-8. */
export function isEscaped(path: string): boolean {
  // Which engines know of most strings without looking at the characters.
  return !path.isWellFormed() && ESCAPED.test(path);
}

/** Whether a path has a surrogate that stands for no byte: there are no bytes for such a path. */
export function isUnpaired(path: string): boolean {
  return !path.isWellFormed() && UNPAIRED.test(path);
}

/** The bytes of a path. */
export function encodePath(path: string): Uint8Array<ArrayBuffer> {
  if (!isEscaped(path)) return encoder.encode(path);
  const bytes: number[] = [];
  for (const character of path) {
    if (isEscaped(character)) bytes.push(character.charCodeAt(0) - FIRST_ESCAPE);
    else bytes.push(...encoder.encode(character));
  }
  return new Uint8Array(bytes);
}

/** The path that some bytes are. */
export function decodePath(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    // Not UTF-8.
  }
  let path = "";
  for (let at = 0; at < bytes.length;) {
    const length = sequenceLength(bytes, at);
    if (length > 0) path += decoder.decode(bytes.subarray(at, at + length));
    else path += String.fromCharCode(FIRST_ESCAPE + bytes[at]!);
    at += Math.max(1, length);
  }
  return path;
}

/** The length of the UTF-8 sequence that begins at `at`; 0 when none does. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!;
  const length = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 0;
  if (length < 2) return length;
  try {
    return decoder.decode(bytes.subarray(at, at + length)).length > 0 && at + length <= bytes.length ? length : 0;
  } catch {
    return 0;
  }
}
