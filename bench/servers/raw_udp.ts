/** Echo of UDP datagrams on the running runtime's own API, as directly as it can be written: what ours is measured against. */

interface BunUdpSocket {
  readonly port: number;
  send(bytes: Uint8Array, port: number, address: string): boolean;
}
interface DenoDatagramConn {
  readonly addr: { readonly port: number };
  receive(buffer: Uint8Array): Promise<[Uint8Array, object]>;
  send(bytes: Uint8Array, to: object): Promise<number>;
}
const { Bun, Deno } = globalThis as {
  Bun?: { udpSocket(options: unknown): Promise<BunUdpSocket> };
  Deno?: { listenDatagram(options: unknown): DenoDatagramConn };
};

function listening(port: number): void {
  console.log(`listening udp://127.0.0.1:${port}`);
}

if (Deno !== undefined) {
  const conn = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  listening(conn.addr.port);
  // One buffer for all, which nothing but this loop allows.
  const buffer = new Uint8Array(65_536);
  for (;;) {
    const [bytes, sender] = await conn.receive(buffer);
    await conn.send(bytes, sender);
  }
} else if (Bun !== undefined) {
  const socket = await Bun.udpSocket({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      // What the kernel doesn't take is lost, and counted by the load generator.
      data: (socket: BunUdpSocket, bytes: Uint8Array, port: number, address: string) => void socket.send(bytes, port, address),
    },
  });
  listening(socket.port);
} else {
  const socket = process.getBuiltinModule("node:dgram").createSocket("udp4");
  socket.on("message", (bytes, sender) => socket.send(bytes, sender.port, sender.address));
  socket.bind(0, "127.0.0.1", () => listening(socket.address().port));
}
