import type { Address } from "./address.ts";
import { parseProxyHeader, type ProxyHeader, ProxyHeaderError } from "./proxy_protocol.ts";
import type { SocketError } from "./errors.ts";
import type { RawConnection } from "./runtime.ts";

/**
 * Reads a connection's PROXY protocol header.
 *
 * @param raw The connection. Unless there is a header, it is aborted.
 * @returns The connection behind the header.
 * @throws {ProxyHeaderError} As the rejection, when the connection begins with something else or ends before.
 * @throws {SocketError} As the rejection, when the connection is lost.
 */
export async function readProxyHeader(raw: RawConnection): Promise<RawConnection> {
  try {
    let bytes: Uint8Array = new Uint8Array();
    for (;;) {
      const chunk = await raw.read();
      if (chunk === null) throw new ProxyHeaderError(`the peer ended its side after ${bytes.length} bytes of the header`);
      bytes = bytes.length === 0 ? chunk : joined(bytes, chunk);
      const header = parseProxyHeader(bytes);
      if (header !== null) return new ProxiedConnection(raw, header, bytes.subarray(header.bytes.length));
    }
  } catch (error) {
    raw.abort();
    throw error;
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

/** A connection behind its header: the peer is the one that the header names, and the stream begins after it. */
class ProxiedConnection implements RawConnection {
  readonly remoteAddress: Address;
  readonly proxy: ProxyHeader;
  #raw: RawConnection;
  /** What came with the header and nobody has read yet. */
  #rest: Uint8Array | null;

  constructor(raw: RawConnection, proxy: ProxyHeader, rest: Uint8Array) {
    this.remoteAddress = proxy.source ?? raw.remoteAddress;
    this.proxy = proxy;
    this.#raw = raw;
    this.#rest = rest.length === 0 ? null : rest;
  }

  get localAddress(): Address {
    return this.#raw.localAddress;
  }

  get onclose(): ((error: SocketError | null) => void) | null {
    return this.#raw.onclose;
  }

  set onclose(callback: ((error: SocketError | null) => void) | null) {
    this.#raw.onclose = callback;
  }

  get bytesRead(): number {
    return this.#raw.bytesRead - this.proxy.bytes.length;
  }

  get bytesWritten(): number {
    return this.#raw.bytesWritten;
  }

  get unsent(): number {
    return this.#raw.unsent;
  }

  get reading(): boolean {
    return this.#raw.reading;
  }

  get readEnded(): boolean {
    return this.#raw.readEnded;
  }

  read(): Promise<Uint8Array | null> {
    return this.#rest === null ? this.#raw.read() : Promise.resolve(this.#takeRest());
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    return this.#rest === null ? this.#raw.next() : Promise.resolve({ done: false, value: this.#takeRest() });
  }

  write(bytes: Uint8Array): void | Promise<void> {
    return this.#raw.write(bytes);
  }

  closeWrite(): void | Promise<void> {
    return this.#raw.closeWrite();
  }

  close(): void {
    this.#rest = null;
    this.#raw.close();
  }

  abort(): void {
    this.#rest = null;
    this.#raw.abort();
  }

  watch(): void {
    this.#raw.watch();
  }

  setNoDelay(on: boolean): void {
    this.#raw.setNoDelay(on);
  }

  setKeepAlive(on: boolean | number): void {
    this.#raw.setKeepAlive(on);
  }

  unref(): void {
    this.#raw.unref();
  }

  #takeRest(): Uint8Array {
    const rest = this.#rest!;
    this.#rest = null;
    return rest;
  }
}
