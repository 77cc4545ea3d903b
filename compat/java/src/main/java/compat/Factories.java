package compat;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import com.taobao.metamorphosis.client.MetaClientConfig;
import com.taobao.metamorphosis.client.MetaMessageSessionFactory;
import com.taobao.metamorphosis.client.extension.AsyncMetaMessageSessionFactory;
import com.taobao.metamorphosis.utils.ZkUtils.ZKConfig;

/** The session factories of this process, by the name the test gave them. */
final class Factories {
    private final Map<String, MetaMessageSessionFactory> open = new ConcurrentHashMap<>();

    /** "factory", and either "url" (direct connection) or "zookeeper" and "root"; "timeout" of the session in ms. */
    void open(Driver.Call call) throws Exception {
        MetaClientConfig config = new MetaClientConfig();
        if (call.text("url") != null) {
            config.setServerUrl(call.text("url"));
        } else {
            int timeout = (int) call.number("timeout", 6000);
            config.setZkConfig(new ZKConfig(call.text("root"), call.text("zookeeper"), timeout, 30000, 1000, true));
        }
        this.open.put(call.text("factory"), new AsyncMetaMessageSessionFactory(config));
    }

    void close(Driver.Call call) throws Exception {
        this.open.remove(call.text("factory")).shutdown();
    }

    AsyncMetaMessageSessionFactory of(Driver.Call call) {
        MetaMessageSessionFactory factory = this.open.get(call.text("factory"));
        if (factory == null) {
            throw new IllegalArgumentException("no factory is open as " + call.text("factory"));
        }
        return (AsyncMetaMessageSessionFactory) factory;
    }
}
