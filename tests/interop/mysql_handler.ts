/** As much of MySQL as a client takes to log in with TLS, for `tests/interop/mysql.test.ts`, in threads and processes too. */
import { type StartTlsOptions, StreamRequestHandler, type TlsOptions } from "@sockets/server";

/** What clients and servers can do, as bits. */
const PROTOCOL_41 = 0x200;
const SSL = 0x800;
const SECURE_CONNECTION = 0x8000;
const PLUGIN_AUTH = 0x80000;
const CAPABILITIES = 1 | PROTOCOL_41 | SSL | SECURE_CONNECTION | PLUGIN_AUTH;

const ascii = (text: string) => [...new TextEncoder().encode(text)];
const GREETING = [
  ...[10, ...ascii("8.0.99"), 0, 1, 0, 0, 0],
  ...[...ascii("AAAAAAAA"), 0, CAPABILITIES & 255, CAPABILITIES >> 8 & 255, 33, 2, 0, CAPABILITIES >> 16, 0, 21],
  ...[...new Array<number>(10).fill(0), ...ascii("BBBBBBBBBBBB"), 0, ...ascii("mysql_native_password"), 0],
];

/** Lets nobody in, and says who he is and how he came. */
export default class MySqlHandler extends StreamRequestHandler {
  override timeout = 10_000;

  override async handle(): Promise<void> {
    const { tls, how } = this.server.data as { tls: TlsOptions; how?: StartTlsOptions };
    await this.wfile.write(packet(0, GREETING));
    let login = await this.#read();
    if (((login[0]! | login[1]! << 8) & SSL) !== 0) {
      await this.request.startTls(tls, how);
      login = await this.#read();
    }
    const user = new TextDecoder().decode(login.subarray(32, login.indexOf(0, 32)));
    const text = `${user} over ${this.request.tls?.protocol ?? "nothing"}`;
    await this.wfile.write(packet(3, [255, 1045 & 255, 1045 >> 8, ...ascii(`#28000${text}`)]));
  }

  async #read(): Promise<Uint8Array> {
    const header = await this.rfile.readExactly(4);
    return await this.rfile.readExactly(header[0]! | header[1]! << 8 | header[2]! << 16);
  }
}

function packet(sequence: number, payload: number[]): Uint8Array {
  return new Uint8Array([payload.length & 255, payload.length >> 8, 0, sequence, ...payload]);
}
