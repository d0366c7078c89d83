/**
 * Characters that do something to a terminal or to a log beyond being shown: control characters (C0, DEL, C1), the separators of lines
 * and paragraphs, the marks that change the direction of writing, and halves of surrogate pairs, which are no text.
 */
// deno-lint-ignore no-control-regex
const STEERING = /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;
/** The same, but for what parts lines and columns. */
// deno-lint-ignore no-control-regex
const STEERING_IN_LINES = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;
/** What {@linkcode escape} writes, and `\x5c` for a backslash. */
const ESCAPED = /\\(?:x(0[0-9a-f]|1[0-9a-f]|7f|5c|[89a-f][0-9a-f])|u([0-9a-f]{4}))/g;
const BACKSLASH = "\\x5c";

/** A text as one line that steers nothing: each character that would is written `\xHH` or `\uHHHH`. */
export function printable(text: string): string {
  return text.replace(STEERING, escape);
}

/** The same for several lines: newlines and tabs stay. */
export function printableLines(text: string): string {
  return text.replace(STEERING_IN_LINES, escape);
}

/** The same, so that {@linkcode unescapeText} finds the text again: a backslash that would be read as such is written `\x5c`. */
export function escapeText(text: string): string {
  if (!text.includes("\\")) return printable(text);
  return printable(text.replace(ESCAPED, (like) => unescapeText(like) === like ? like : BACKSLASH + like.slice(1)));
}

/** The text of which {@linkcode escapeText} made this. */
export function unescapeText(text: string): string {
  return text.replace(ESCAPED, (escaped, byte: string | undefined, unit: string | undefined) => {
    const code = parseInt(byte ?? unit!, 16);
    if (byte !== undefined) return String.fromCharCode(code < 0x80 ? code : 0xdc00 + code);
    const char = String.fromCharCode(code);
    // Half a surrogate pair is no part of a path.
    return code >= 0x80 && char.isWellFormed() && printable(char) === escaped ? char : escaped;
  });
}

/** A byte that is no UTF-8 stands in a text as a code unit from U+DC80 to U+DCFF, and is written as the byte that it is. */
function escape(char: string): string {
  const code = char.charCodeAt(0);
  const byte = code >= 0xdc80 && code <= 0xdcff ? code - 0xdc00 : code < 0x80 ? code : null;
  return byte === null ? `\\u${code.toString(16).padStart(4, "0")}` : `\\x${byte.toString(16).padStart(2, "0")}`;
}
