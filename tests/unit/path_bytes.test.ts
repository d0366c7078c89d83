/** Paths as bytes and as text: what the system reports can be given back to it. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { decodePath, encodePath, isEscaped, isUnpaired } from "../../src/path_bytes.ts";
import { generator } from "./generator.ts";

const CASES: [name: string, bytes: number[], path: string][] = [
  ["ASCII", [0x2f, 0x61], "/a"],
  ["UTF-8 of two, three and four bytes", [0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80], "é€😀"],
  ["a byte order mark", [0xef, 0xbb, 0xbf, 0x61], "\ufeffa"],
  ["an abstract name", [0, 0x61, 0, 0xff], "\0a\0\udcff"],
  ["bytes that are never UTF-8", [0x70, 0xff, 0xfe], "p\udcff\udcfe"],
  ["a continuation that continues nothing", [0x80, 0x61], "\udc80a"],
  ["a sequence that is cut, at the end and before text", [0xe2, 0x82, 0x61, 0xe2, 0x82], "\udce2\udc82a\udce2\udc82"],
  ["an overlong sequence", [0xc0, 0xaf], "\udcc0\udcaf"],
  ["a surrogate in UTF-8", [0xed, 0xb2, 0x80], "\udced\udcb2\udc80"],
  ["beyond Unicode", [0xf5, 0x80, 0x80, 0x80], "\udcf5\udc80\udc80\udc80"],
  ["text between", [0xff, 0xc3, 0xa9, 0xff], "\udcffé\udcff"],
];

for (const [name, bytes, path] of CASES) {
  test(`path bytes: ${name}`, () => {
    assertEquals(decodePath(new Uint8Array(bytes)), path);
    assertEquals([...encodePath(path)], bytes);
    assertEquals(isEscaped(path), new TextDecoder().decode(new Uint8Array(bytes)).includes("\ufffd"));
    assertEquals(isUnpaired(path), false);
  });
}

test("path bytes: whatever bytes there are, they come back", () => {
  const random = generator(32);
  for (let i = 0; i < 2000; i++) {
    const bytes = Array.from({ length: Math.floor(random() * 12) }, () => Math.floor(random() * 256));
    assertEquals([...encodePath(decodePath(new Uint8Array(bytes)))], bytes);
  }
});

test("path bytes: a surrogate that stands for no byte is found", () => {
  for (const path of ["\ud800", "a\udfffb", "\udc7f", "\udd00"]) assertEquals(isUnpaired(path), true);
});
