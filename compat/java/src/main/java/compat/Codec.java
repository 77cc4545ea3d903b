package compat;

import com.taobao.gecko.core.buffer.IoBuffer;
import com.taobao.gecko.core.core.CodecFactory.Decoder;
import com.taobao.metamorphosis.network.MetaEncodeCommand;
import com.taobao.metamorphosis.network.MetamorphosisWireFormatType;
import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;

/**
 * The original's decoder and encoder as a filter: a stream of bytes in hex on each line of the
 * input; on each line of the output its commands as {@code class=bytes}, encoded again
 * ({@code class=?} where the original cannot), then {@code refused} or {@code waiting=count}.
 */
public final class Codec {
    private static final Decoder DECODER = new MetamorphosisWireFormatType().newCodecFactory().getDecoder();

    private Codec() {
    }

    public static void main(String[] arguments) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        try (PrintStream out = new PrintStream(new BufferedOutputStream(System.out), false, "US-ASCII")) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                out.println(decodeAll(bytes(line)));
            }
        }
    }

    private static String decodeAll(byte[] stream) {
        IoBuffer buffer = IoBuffer.wrap(stream);
        StringBuilder outcome = new StringBuilder();
        while (true) {
            int start = buffer.position();
            Object command;
            try {
                command = DECODER.decode(buffer, null);
            } catch (RuntimeException refused) {
                return outcome.append("refused").toString();
            }
            if (command == null) {
                return outcome.append("waiting=").append(stream.length - start).toString();
            }
            outcome.append(command.getClass().getSimpleName()).append('=').append(encode(command)).append(' ');
        }
    }

    private static String encode(Object command) {
        try {
            IoBuffer encoded = ((MetaEncodeCommand) command).encode();
            byte[] bytes = new byte[encoded.remaining()];
            encoded.get(bytes);
            return hex(bytes);
        } catch (RuntimeException impossible) {
            return "?";
        }
    }

    private static byte[] bytes(String hex) {
        byte[] signed = new BigInteger("01" + hex, 16).toByteArray();
        byte[] bytes = new byte[signed.length - 1];
        System.arraycopy(signed, 1, bytes, 0, bytes.length);
        return bytes;
    }

    private static String hex(byte[] bytes) {
        return new BigInteger(1, bytes).toString(16);
    }
}
