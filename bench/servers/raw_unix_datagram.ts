/** Echo of Unix datagrams on the running runtime's own API, which Deno alone has: `raw_unix_datagram.ts unixgram:/path`. */

interface DenoDatagramConn {
  receive(buffer: Uint8Array): Promise<[Uint8Array, object]>;
  send(bytes: Uint8Array, to: object): Promise<number>;
}
const { Deno } = globalThis as { Deno?: { listenDatagram(options: unknown): DenoDatagramConn } };

const address = process.argv[2]!;
if (Deno === undefined) {
  console.log("unsupported it has no Unix datagram sockets of its own");
} else {
  const conn = Deno.listenDatagram({ transport: "unixpacket", path: address.replace("unixgram:", "") });
  console.log(`listening ${address}`);
  const buffer = new Uint8Array(65_536);
  for (;;) {
    const [bytes, sender] = await conn.receive(buffer);
    await conn.send(bytes, sender);
  }
}
