/** Binds and sends to host names of several addresses, and prints what becomes of it. */
import { bind, formatAddress } from "@sockets/server";

/** Sends a datagram to a name; who gets it, or the error's code. */
async function send(from: string, name: string): Promise<string> {
  const receivers = [await bind("udp://127.0.0.1:0")];
  const { port } = receivers[0]!.address as { port: number };
  receivers.push(await bind(`udp://[::1]:${port}`));
  const sender = await bind(from);
  try {
    await sender.send("x", `udp://${name}:${port}`);
    return await Promise.race(receivers.map(async (receiver) => {
      await receiver.receive();
      return formatAddress(receiver.address).replace(/:\d+$/, "");
    }));
  } catch (error) {
    return String((error as { code?: unknown }).code);
  } finally {
    for (const socket of [...receivers, sender]) await socket.close();
  }
}

for (
  const [from, name] of [
    ["127.0.0.1", "both.test"],
    ["[::1]", "both.test"],
    ["[::]", "both.test"],
    ["127.0.0.1", "six.test"],
    ["127.0.0.1", "four.test"],
    ["[::1]", "four.test"],
    ["[::]", "four.test"],
    ["127.0.0.1", "none.test"],
    ["[::]", "none.test"],
  ] as const
) console.log(`${from} to ${name}: ${await send(`udp://${from}:0`, name)}`);
for (const addressFamily of ["IPv4", "IPv6"] as const) {
  const socket = await bind("udp://both.test:0", { addressFamily });
  console.log(`${addressFamily} of both.test: ${formatAddress(socket.address).replace(/:\d+$/, "")}`);
  await socket.close();
}
