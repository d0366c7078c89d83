import type { Address } from "./address.ts";
import { ChunkQueue } from "./chunk_queue.ts";
import { alreadyReading } from "./connection.ts";
import { SocketError } from "./errors.ts";
import { afterPileUp, isPiledUp } from "./pile_up.ts";
import { rejected } from "./promises.ts";
import type { RawConnection, Receiver } from "./runtime.ts";
import type { TlsInfo } from "./tls.ts";

/** Bytes that are taken from the peer ahead of the reader; with this much waiting, receiving stops. */
const HIGH_WATER = 65_536;

/**
 * The receiving half of a connection on a runtime that delivers data by callback: turns it into a pull with bounded memory. The
 * adapter reports `received`, `ended` and `lost`; a waiting receiver is told straight from the callback.
 */
export abstract class EventedConnection implements RawConnection {
  abstract readonly localAddress: Address;
  abstract readonly remoteAddress: Address;
  abstract readonly bytesWritten: number;
  abstract readonly unsent: number;
  bytesRead = 0;
  /** Whether the sending side was ended here. */
  protected sendEnded = false;
  #onclose: ((error: SocketError | null) => void) | null = null;
  /** Who waits for a chunk. */
  #receiver: Receiver | null = null;
  /** Where it wants it. */
  #into: Uint8Array | null = null;
  /** What nobody has read yet; `null` until there is any. */
  #chunks: ChunkQueue | null = null;
  #paused = false;
  /** Whether it is paused for a moment, as what others sent piles up. */
  #heldUp = false;
  #ended = false;
  #closedHere = false;
  #gone = false;
  #error: SocketError | null = null;

  abstract write(bytes: Uint8Array): void | Promise<void>;
  abstract setNoDelay(on: boolean): void;
  abstract setKeepAlive(on: boolean | number): void;
  abstract unref(): void;
  abstract ref(): void;
  /** Ends the sending side, once what was written has left. */
  protected abstract endSend(): void | Promise<void>;
  /** Closes the sending side and the socket, once what was written has left. */
  protected abstract finish(): void;
  /** Closes the socket at once. */
  protected abstract destroy(): void;
  /** Stops and restarts receiving. */
  protected abstract pause(): void;
  protected abstract resume(): void;

  get tls(): TlsInfo | null {
    return null;
  }

  get onclose(): ((error: SocketError | null) => void) | null {
    return this.#onclose;
  }

  /** A connection can be lost while it waits to be accepted; whoever asks later is told at once. */
  set onclose(callback: ((error: SocketError | null) => void) | null) {
    this.#onclose = callback;
    if (this.#gone) callback?.(this.#error);
  }

  get reading(): boolean {
    return this.#receiver !== null;
  }

  get readEnded(): boolean {
    return this.#ended;
  }

  receive(receiver: Receiver, into: Uint8Array | null = null): Uint8Array | null | undefined {
    const chunks = this.#chunks;
    if (chunks !== null && chunks.length > 0) {
      const chunk = chunks.shift()!;
      if (chunks.length === 0) this.watch();
      return chunk;
    }
    if (this.#closedHere || this.#error !== null) throw this.closeError("read");
    if (this.#ended) return null;
    if (this.#gone) throw this.closeError("read");
    if (this.#receiver !== null) throw alreadyReading();
    if (this.#paused) this.watch();
    this.#receiver = receiver;
    this.#into = into;
  }

  /** The memory that a chunk of so many bytes goes into; `null` when it is to have its own. */
  into(size: number): Uint8Array | null {
    const into = this.#receiver === null ? null : this.#into;
    return into === null || into.length < size ? null : into;
  }

  closeWrite(): void | Promise<void> {
    // With both sides ended in order it is no error, as with shutdown(2).
    if (this.#over) return;
    if (this.dead) return rejected(this.closeError("shutdown"));
    if (this.sendEnded) return;
    this.sendEnded = true;
    return this.endSend();
  }

  close(): void {
    if (this.#stopReceiving()) this.finish();
  }

  abort(): void {
    this.#stopReceiving();
    if (!this.#gone) this.destroy();
  }

  watch(): void {
    // With as much waiting as is allowed, receiving goes on when somebody has read it.
    if (!this.#paused || this.#heldUp || this.#gone || this.#held >= HIGH_WATER) return;
    this.#paused = false;
    this.resume();
  }

  beginWith(bytes: Uint8Array): void {
    this.bytesRead = bytes.length + this.#held;
    if (bytes.length > 0) (this.#chunks ??= new ChunkQueue()).unshift(bytes);
  }

  /** Stops receiving until somebody reads: for a connection that waits to be accepted. */
  hold(): void {
    if (this.#paused || this.#gone) return;
    this.#paused = true;
    this.pause();
  }

  /** Takes what has been received and not been read, for whoever goes on with the socket. */
  takeReceived(): Uint8Array {
    return this.#chunks?.take() ?? new Uint8Array(0);
  }

  /** A chunk has come. */
  received(chunk: Uint8Array): void {
    this.bytesRead += chunk.length;
    const receiver = this.#receiver;
    if (receiver !== null) {
      this.#receiver = null;
      receiver.received(chunk);
    } else if (!this.#closedHere) {
      (this.#chunks ??= new ChunkQueue()).push(chunk);
      if (this.#held >= HIGH_WATER) this.hold();
    }
    if (isPiledUp) this.#holdUp();
  }

  /** The peer has ended its sending side. */
  ended(): void {
    this.#ended = true;
    const receiver = this.#receiver;
    this.#receiver = null;
    receiver?.received(null);
  }

  /** The connection is gone: with the reason when it was lost, `null` when it ended in order. */
  lost(error: SocketError | null): void {
    if (this.#gone) return;
    this.#gone = true;
    // What happens to a connection that was closed here is nobody's error any more.
    this.#error = this.#closedHere ? null : error;
    // In order: some runtimes say this alone when both ends have ended their sides.
    if (error === null && !this.#closedHere) this.ended();
    else this.#failRead();
    this.#onclose?.(this.#error);
  }

  /** Whether the connection can't be used any more. */
  protected get dead(): boolean {
    return this.#gone || this.#closedHere;
  }

  /** Whether both sides have ended in order. */
  get #over(): boolean {
    return this.#gone && !this.#closedHere && this.#error === null;
  }

  get #held(): number {
    return this.#chunks?.size ?? 0;
  }

  /** How many bytes the reader is willing to have waiting beside those it has. */
  protected get room(): number {
    return Math.max(0, HIGH_WATER - this.#held);
  }

  /** What an operation on a dead connection gets. */
  protected closeError(syscall: string): SocketError {
    if (this.#error !== null) return this.#error;
    // After an end in order on both sides there is nobody to write to.
    const code = this.#over && syscall !== "read" ? "EPIPE" : "ECONNABORTED";
    return new SocketError(code, { syscall, address: this.remoteAddress });
  }

  /** The end of receiving by this side's choice; false the second time. */
  #stopReceiving(): boolean {
    if (this.dead) return false;
    this.#closedHere = true;
    this.#chunks = null;
    this.#failRead();
    return true;
  }

  #holdUp(): void {
    if (this.#paused || this.dead) return;
    this.#heldUp = true;
    this.hold();
    afterPileUp(() => {
      this.#heldUp = false;
      this.watch();
    });
  }

  #failRead(): void {
    const receiver = this.#receiver;
    this.#receiver = null;
    receiver?.failed(this.closeError("read"));
  }
}
