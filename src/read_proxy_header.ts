import { parseProxyHeader, type ProxyHeader, ProxyHeaderError } from "./proxy_protocol.ts";
import { Pull } from "./pull.ts";
import type { RawConnection } from "./runtime.ts";

/**
 * Reads a connection's PROXY protocol header; the stream begins after it then.
 *
 * @param raw The connection. Unless there is a header, it is aborted.
 * @returns The header.
 * @throws {ProxyHeaderError} As the rejection, when the connection begins with something else or ends before.
 * @throws {SocketError} As the rejection, when the connection is lost.
 */
export async function readProxyHeader(raw: RawConnection): Promise<ProxyHeader> {
  try {
    const pull = new Pull(raw);
    let bytes: Uint8Array = new Uint8Array();
    for (;;) {
      const chunk = await pull.read();
      if (chunk === null) throw new ProxyHeaderError(`the peer ended its side after ${bytes.length} bytes of the header`);
      bytes = bytes.length === 0 ? chunk : joined(bytes, chunk);
      const header = parseProxyHeader(bytes);
      if (header === null) continue;
      raw.beginWith(bytes.subarray(header.bytes.length));
      return header;
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
