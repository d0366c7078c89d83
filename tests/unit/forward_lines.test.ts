import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { LineForwarder } from "../../runtimes/shared/forward_lines.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** What is shown of chunks of output. */
function shown(...chunks: Uint8Array[]): string {
  let text = "";
  const lines = new LineForwarder("[7] ", (more) => text += `${more}\n`);
  for (const chunk of chunks) lines.push(chunk);
  lines.end();
  return text;
}

test("each line gets the mark, however it was cut into chunks, and so does one without an end", () => {
  const text = "first\n\nthird ä€😀\nlast";
  const marked = "[7] first\n[7] \n[7] third ä€😀\n[7] last\n";
  assertEquals(shown(bytes(text)), marked);
  assertEquals(shown(...Array.from(bytes(text), (byte) => Uint8Array.of(byte))), marked);
});

test("a chunk may be overwritten once it was taken", () => {
  const chunk = bytes("begun");
  let text = "";
  const lines = new LineForwarder("", (more) => text += `${more}\n`);
  lines.push(chunk);
  chunk.fill(0);
  lines.push(bytes(", and ended\n"));
  assertEquals(text, "begun, and ended\n");
});

test("a line is cut at 64 KiB, says how much was cut, and the next one is whole", () => {
  const long = "x".repeat(65_536);
  assertEquals(shown(bytes(`${long}\nnext\n`)), `[7] ${long}\n[7] next\n`);
  assertEquals(shown(bytes(`${long}yz\nnext\n`)), `[7] ${long} [2 bytes more were cut]\n[7] next\n`);
  const chunks = Array.from({ length: 512 }, () => bytes("x".repeat(1024)));
  assertEquals(shown(...chunks), `[7] ${long} [${448 * 1024} bytes more were cut]\n`);
});

test("no character is cut in halves", () => {
  const cut = shown(bytes(`${"x".repeat(65_535)}ä\n`));
  assertEquals(cut, `[7] ${"x".repeat(65_535)} [2 bytes more were cut]\n`);
  assert(!cut.includes("\ufffd"));
});
