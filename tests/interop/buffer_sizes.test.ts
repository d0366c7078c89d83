/** The kernel's buffers of datagram sockets, as `ss` sees them. */
import { assert, assertEquals } from "@std/assert";
import { bind, type DatagramSocketOptions, formatAddress, getRuntime } from "@sockets/server";
import { missingUnixDatagram, run, testWith } from "./programs.ts";

/** What `ss` says of the buffers of a socket. */
async function buffers(...filter: string[]): Promise<{ receive: number; send: number }> {
  const { status, stdout, stderr } = await run("ss", ["--all", "--numeric", "--memory", "--no-header", ...filter]);
  assertEquals([status, stderr], [0, ""]);
  const [, receive, send] = /skmem:\(r\d+,rb(\d+),t\d+,tb(\d+)/.exec(stdout) ?? [];
  assert(receive !== undefined, `ss ${filter.join(" ")} says ${JSON.stringify(stdout)}`);
  return { receive: Number(receive), send: Number(send) };
}

for (const local of ["udp://127.0.0.1:0", "udp://[::1]:0", "unixgram:"]) {
  if (local === "unixgram:" && missingUnixDatagram !== false) continue;

  /** What the kernel says of a socket with these options. */
  const sizes = async (options: DatagramSocketOptions) => {
    const other = await bind(local);
    const socket = await bind(local, options);
    const of = ({ address }: typeof socket) =>
      "port" in address
        ? buffers("--udp", `src ${address.hostname.includes(":") ? `[${address.hostname}]` : address.hostname}:${address.port}`)
        : buffers("--unix", `src ${address.path.replace("\0", "@")}`);
    try {
      return { socket: await of(socket), other: await of(other) };
    } finally {
      await Promise.all([socket.close(), other.close()]);
    }
  };

  testWith("ss", `buffer sizes: ${local} has those that it was asked for, and no other socket`, async () => {
    const { socket: usual } = await sizes({});
    // Linux keeps as much again for itself (socket(7)).
    const both = await sizes({ receiveBufferSize: 50_000, sendBufferSize: 40_000 });
    assertEquals(both, { socket: { receive: 100_000, send: 80_000 }, other: usual });
    assertEquals(await sizes({ receiveBufferSize: 60_000 }), { socket: { ...usual, receive: 120_000 }, other: usual });
    assertEquals(await sizes({ sendBufferSize: 60_000 }), { socket: { ...usual, send: 120_000 }, other: usual });
  });

  testWith("ss", `buffer sizes: ${local} gives a datagram no more memory for them`, async () => {
    for (const options of [{}, { receiveBufferSize: 1_000_000 }]) {
      const receiver = await bind(local, { maxPacketSize: 1000, ...options });
      receiver.timeout = 10_000;
      const sender = await bind(local);
      const memory = new Set<ArrayBufferLike>();
      for (let i = 0; i < 100; i++) {
        await sender.send("hello", receiver.address);
        memory.add((await receiver.receive())!.data.buffer);
      }
      const size = [...memory].reduce((sum, { byteLength }) => sum + byteLength, 0);
      assert(
        size <= 100 * 1001,
        `${getRuntime().name}: 100 datagrams of 5 bytes at ${formatAddress(receiver.address)} hold ${size}`,
      );
      await Promise.all([receiver.close(), sender.close()]);
    }
  });
}
