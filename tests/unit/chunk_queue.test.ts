/** What chunks that nobody reads cost. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { ChunkQueue } from "../../src/chunk_queue.ts";

function takeAll(queue: ChunkQueue): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let chunk; (chunk = queue.shift()) !== undefined;) chunks.push(chunk);
  return chunks;
}

/** Bytes of the buffers that chunks keep. */
function kept(chunks: Uint8Array[]): number {
  return [...new Set(chunks.map(({ buffer }) => buffer))].reduce((sum, { byteLength }) => sum + byteLength, 0);
}

const patterns: { [name: string]: (i: number) => number } = {
  "of one byte": () => 1,
  "of 100 bytes": () => 100,
  "of 4095 bytes": () => 4095,
  "of 16 KiB": () => 16_384,
  "of one byte and 4096": (i) => i % 2 === 0 ? 1 : 4096,
  "that grow and shrink": (i) => 1 + (i * 37) % 9000,
};
for (const [name, sizeOf] of Object.entries(patterns)) {
  void test(`chunk queue: 64 KiB in chunks ${name} are kept in few objects and little more memory`, () => {
    const queue = new ChunkQueue();
    let size = 0;
    for (let i = 0; size < 65_536; i++) {
      const chunk = new Uint8Array(sizeOf(i)).map((_, j) => (size + j) * 31);
      queue.push(chunk);
      size += chunk.length;
    }
    assertEquals(queue.size, size);
    assert(queue.length <= 34, `${queue.length} chunks`);
    const chunks = takeAll(queue);
    assertEquals(Buffer.compare(Buffer.concat(chunks), new Uint8Array(size).map((_, i) => i * 31)), 0);
    assert(kept(chunks) <= size * 2.5, `${kept(chunks)} bytes are kept for ${size}`);
    assertEquals([queue.size, queue.length], [0, 0]);
  });
}

void test("chunk queue: a small part of a large buffer doesn't keep it", () => {
  const queue = new ChunkQueue();
  queue.push(new Uint8Array(65_536).subarray(1000, 1010));
  queue.push(new Uint8Array(65_536).subarray(0, 5000));
  assert(kept(takeAll(queue)) <= 5256);
});

void test("chunk queue: a chunk that was taken stays as it is, whatever comes after it", () => {
  const queue = new ChunkQueue();
  for (const byte of [1, 2]) queue.push(new Uint8Array([byte]));
  const first = queue.shift()!;
  for (const byte of [3, 4]) queue.push(new Uint8Array([byte]));
  first.fill(9);
  queue.unshift(new Uint8Array([0]));
  assertEquals([[...first], [...queue.take()]], [[9, 9], [0, 3, 4]]);
});
