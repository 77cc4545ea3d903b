import java.util.concurrent.Executor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

import com.taobao.metamorphosis.Message;
import com.taobao.metamorphosis.client.MetaClientConfig;
import com.taobao.metamorphosis.client.MetaMessageSessionFactory;
import com.taobao.metamorphosis.client.consumer.ConsumerConfig;
import com.taobao.metamorphosis.client.consumer.MessageConsumer;
import com.taobao.metamorphosis.client.consumer.MessageListener;
import com.taobao.metamorphosis.client.producer.MessageProducer;
import com.taobao.metamorphosis.client.producer.SendMessageCallback;
import com.taobao.metamorphosis.client.producer.SendResult;
import com.taobao.metamorphosis.utils.ZkUtils.ZKConfig;

/**
 * The original client at work. Arguments: produce URL SECONDS WINDOW BYTES, or
 * consume ZOOKEEPER TOPIC MESSAGES FETCH-BYTES. Prints one line of JSON.
 */
public final class ClientBenchmark {
    private static final double WARM_UP = 3.0;  // seconds: the compiler's

    public static void main(String[] args) {
        try {
            run(args);
            System.exit(0);  // shutdown of a directly connected factory throws
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1);
        }
    }

    private static void run(String[] args) throws Exception {
        if (args[0].equals("produce")) {
            produce(args[1], Double.parseDouble(args[2]), Integer.parseInt(args[3]), Integer.parseInt(args[4]));
        } else {
            consume(args[1], args[2], Long.parseLong(args[3]), Integer.parseInt(args[4]));
        }
    }

    private static void produce(String url, double seconds, int window, int bytes) throws Exception {
        MetaClientConfig config = new MetaClientConfig();
        config.setServerUrl(url);
        MessageProducer producer = new MetaMessageSessionFactory(config).createProducer();
        producer.publish("bench");
        byte[] body = new byte[bytes];
        AtomicLong done = new AtomicLong();
        Semaphore room = new Semaphore(window);
        long begin = System.nanoTime();
        long warm = begin + (long) (WARM_UP * 1e9);
        long end = warm + (long) (seconds * 1e9);
        long counted = -1;
        long now;
        while ((now = System.nanoTime()) < end) {
            if (counted < 0 && now >= warm) {
                counted = done.get();
                warm = now;
            }
            if (window == 1) {
                if (!producer.sendMessage(new Message("bench", body)).isSuccess()) {
                    throw new IllegalStateException("a send failed");
                }
                done.incrementAndGet();
            } else {
                room.acquire();
                producer.sendMessage(new Message("bench", body), new SendMessageCallback() {
                    public void onMessageSent(SendResult result) {
                        if (result.isSuccess()) {
                            done.incrementAndGet();
                        }
                        room.release();
                    }

                    public void onException(Throwable error) {
                        room.release();
                    }
                }, 10, TimeUnit.SECONDS);
            }
        }
        System.out.printf("{\"rate\": %.1f}%n", (done.get() - counted) / ((now - warm) / 1e9));
    }

    private static void consume(String zookeeper, String topic, long messages, int fetchBytes) throws Exception {
        MetaClientConfig config = new MetaClientConfig();
        config.setZkConfig(new ZKConfig("/meta", zookeeper, 30000, 30000, 1000, true));
        ConsumerConfig consumerConfig = new ConsumerConfig("java-" + System.nanoTime());
        MessageConsumer consumer = new MetaMessageSessionFactory(config).createConsumer(consumerConfig);
        AtomicLong seen = new AtomicLong();
        long[] at = new long[2];
        Semaphore finished = new Semaphore(0);
        long skipped = messages / 3;  // the compiler's warm-up
        consumer.subscribe(topic, fetchBytes, new MessageListener() {
            public void recieveMessages(Message message) {
                long count = seen.incrementAndGet();
                if (count == skipped) {
                    at[0] = System.nanoTime();
                } else if (count == messages) {
                    at[1] = System.nanoTime();
                    finished.release();
                }
            }

            public Executor getExecutor() {
                return null;
            }
        });
        consumer.completeSubscribe();
        if (!finished.tryAcquire(120, TimeUnit.SECONDS)) {
            throw new IllegalStateException("only " + seen.get() + " of " + messages + " messages came");
        }
        System.out.printf("{\"rate\": %.1f}%n", (messages - skipped) / ((at[1] - at[0]) / 1e9));
    }
}
