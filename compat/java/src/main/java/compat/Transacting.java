package compat;

import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

import javax.transaction.xa.XAException;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;

import com.taobao.metamorphosis.Message;
import com.taobao.metamorphosis.client.MetaClientConfig;
import com.taobao.metamorphosis.client.XAMessageSessionFactory;
import com.taobao.metamorphosis.client.XAMetaMessageSessionFactory;
import com.taobao.metamorphosis.client.producer.MessageProducer;
import com.taobao.metamorphosis.client.producer.SendResult;
import com.taobao.metamorphosis.client.producer.XAMessageProducer;
import com.taobao.metamorphosis.utils.ZkUtils.ZKConfig;

/** Transactions of the original client. Messages are {"messages": [base64, ...]}. */
final class Transacting {
    private final Map<String, XAMessageSessionFactory> factories = new ConcurrentHashMap<>();
    private final Map<String, XAMessageProducer> xa = new ConcurrentHashMap<>();
    private final Map<String, MessageProducer> local = new ConcurrentHashMap<>();

    /** "factory", "zookeeper", "root", "topic", "qualifier" or none: a producer of each kind under the factory's name. */
    void open(Driver.Call call) throws Exception {
        MetaClientConfig config = new MetaClientConfig();
        config.setZkConfig(new ZKConfig(call.text("root"), call.text("zookeeper"), 6000, 30000, 1000, true));
        XAMessageSessionFactory factory = new XAMetaMessageSessionFactory(config);
        String name = call.text("factory");
        this.factories.put(name, factory);
        XAMessageProducer xa = factory.createXAProducer();
        if (call.text("qualifier") != null) {
            xa.setUniqueQualifier(call.text("qualifier"));
        }
        xa.publish(call.text("topic"));
        this.xa.put(name, xa);
        MessageProducer local = factory.createProducer();
        local.publish(call.text("topic"));
        this.local.put(name, local);
    }

    void close(Driver.Call call) throws Exception {
        this.xa.remove(call.text("factory"));
        this.local.remove(call.text("factory"));
        this.factories.remove(call.text("factory")).shutdown();
    }

    /** A local transaction in one call: its thread owns it. "end" is "commit", "rollback" or "none"; "timeout" in s. */
    void local(Driver.Call call) throws Exception {
        MessageProducer producer = this.local.get(call.text("factory"));
        producer.setTransactionTimeout((int) call.number("timeout", 0));
        producer.beginTransaction();
        this.send(call, producer);
        Thread.sleep(call.number("pause", 0));
        if ("commit".equals(call.text("end"))) {
            producer.commit();
        } else if ("rollback".equals(call.text("end"))) {
            producer.rollback();
        }
    }

    /** "xid" of hex gtrid; the steps in "steps": start, send, end, prepare, commit, commit-one-phase, rollback, forget. */
    void xa(Driver.Call call) throws Exception {
        XAMessageProducer producer = this.xa.get(call.text("factory"));
        XAResource resource = producer.getXAResource();
        resource.setTransactionTimeout((int) call.number("timeout", 0));
        Xid xid = new Named(call.text("xid"));
        for (Object step : (List<?>) call.field("steps")) {
            try {
                this.step(call, producer, resource, xid, (String) step);
            } catch (XAException error) {
                call.reply("refused", "step", step, "code", error.errorCode, "text", String.valueOf(error.getMessage()));
            }
        }
    }

    private void step(Driver.Call call, XAMessageProducer producer, XAResource resource, Xid xid, String step)
            throws Exception {
        switch (step) {
            case "start": resource.start(xid, XAResource.TMNOFLAGS); break;
            case "send": this.send(call, producer); break;
            case "end": resource.end(xid, XAResource.TMSUCCESS); break;
            case "prepare": call.reply("vote", "vote", resource.prepare(xid)); break;
            case "commit": resource.commit(xid, false); break;
            case "commit-one-phase": resource.commit(xid, true); break;
            case "rollback": resource.rollback(xid); break;
            case "forget": resource.forget(xid); break;
            case "pause": Thread.sleep(call.number("pause", 0)); break;
            case "recover":
                List<String> found = new ArrayList<>();
                for (Xid each : resource.recover(XAResource.TMSTARTRSCAN)) {
                    found.add(new String(each.getGlobalTransactionId(), "UTF-8"));
                }
                call.reply("recovered", "xids", found);
                break;
            default: throw new IllegalArgumentException("no such step: " + step);
        }
    }

    private void send(Driver.Call call, MessageProducer producer) throws Exception {
        for (Object body : (List<?>) call.field("messages")) {
            Message message = new Message(call.text("topic"), Base64.getDecoder().decode((String) body));
            SendResult result = producer.sendMessage(message, 10000, TimeUnit.MILLISECONDS);
            call.reply("sent", "success", result.isSuccess(), "offset", result.getOffset(),
                    "partition", String.valueOf(result.getPartition()), "error", result.getErrorMessage());
        }
    }

    /** An xid whose global id is the name; the branch is always the same. */
    private static final class Named implements Xid {
        private final String name;

        Named(String name) {
            this.name = name;
        }

        @Override
        public int getFormatId() {
            return 7;
        }

        @Override
        public byte[] getGlobalTransactionId() {
            return this.name.getBytes(java.nio.charset.StandardCharsets.UTF_8);
        }

        @Override
        public byte[] getBranchQualifier() {
            return new byte[] {1, 2};
        }
    }
}
