/** Echo of datagrams on this package, as its README shows it: `ours_datagram.ts udp://127.0.0.1:0` or `unixgram:/path`. */
import { type DatagramAddress, formatAddress, serve, UnsupportedError } from "../../mod.ts";

try {
  const server = await serve(process.argv[2] as DatagramAddress, (datagram) => datagram.reply(datagram.data));
  console.log(`listening ${formatAddress(server.serverAddress)}`);
} catch (error) {
  if (!(error instanceof UnsupportedError)) throw error;
  console.log(`unsupported ${error.message}`);
}
