/** Frames on a stream of bytes, for the channel to a child process. */
import type { OnFrame } from "./ring.ts";

/** Length, channel and type of a frame, four bytes each. */
const HEADER = 12;

/** A frame as bytes. */
export function encodeFrame(channel: number, type: number, payload?: Uint8Array): Uint8Array {
  const length = payload?.length ?? 0;
  const bytes = new Uint8Array(HEADER + length);
  const header = new DataView(bytes.buffer);
  header.setUint32(0, length);
  header.setInt32(4, channel);
  header.setUint32(8, type);
  if (payload !== undefined) bytes.set(payload, HEADER);
  return bytes;
}

/** Finds the frames in chunks as they come. */
export class FrameDecoder {
  #onFrame: OnFrame;
  #rest: Uint8Array = new Uint8Array(0);

  /** @param onFrame Gets each frame. */
  constructor(onFrame: OnFrame) {
    this.#onFrame = onFrame;
  }

  /** Takes the next chunk. */
  push(chunk: Uint8Array): void {
    // As a plain array: slicing a Node Buffer would not copy, and hand on a Buffer.
    let bytes = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length);
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + chunk.length);
      bytes.set(this.#rest);
      bytes.set(chunk, this.#rest.length);
    }
    let start = 0;
    while (bytes.length - start >= HEADER) {
      const header = new DataView(bytes.buffer, bytes.byteOffset + start);
      const end = start + HEADER + header.getUint32(0);
      if (end > bytes.length) break;
      this.#onFrame(header.getInt32(4), header.getUint32(8), bytes.slice(start + HEADER, end));
      start = end;
    }
    this.#rest = bytes.slice(start);
  }
}
