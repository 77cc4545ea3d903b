package compat;

import javax.management.MBeanServerConnection;
import javax.management.ObjectInstance;
import javax.management.remote.JMXConnector;
import javax.management.remote.JMXConnectorFactory;
import javax.management.remote.JMXServiceURL;

/** What an operator does to a running original broker, by JMX. */
final class Operations {
    /** "port" of JMX, "topic", "first" and "last". */
    void closePartitions(Driver.Call call) throws Exception {
        Object[] arguments = {
            call.text("topic"), (int) call.number("first", 0), (int) call.number("last", 0)
        };
        this.configure(call, "closePartitions", arguments, "java.lang.String", "int", "int");
    }

    /** "port" of JMX: the broker reads its file again. */
    void reload(Driver.Call call) throws Exception {
        this.configure(call, "reload", new Object[0]);
    }

    private void configure(Driver.Call call, String operation, Object[] arguments, String... types) throws Exception {
        String url = "service:jmx:rmi:///jndi/rmi://127.0.0.1:" + call.number("port", 0) + "/jmxrmi";
        try (JMXConnector connector = JMXConnectorFactory.connect(new JMXServiceURL(url))) {
            MBeanServerConnection broker = connector.getMBeanServerConnection();
            for (ObjectInstance bean : broker.queryMBeans(null, null)) {
                if (bean.getClassName().endsWith(".MetaConfig")) {
                    broker.invoke(bean.getObjectName(), operation, arguments, types);
                    return;
                }
            }
        }
        throw new IllegalStateException("the broker shows no configuration");
    }

    /** "port" of JMX, "operation" of the original's transactions, "key": an administrator decides. */
    void decide(Driver.Call call) throws Exception {
        String url = "service:jmx:rmi:///jndi/rmi://127.0.0.1:" + call.number("port", 0) + "/jmxrmi";
        try (JMXConnector connector = JMXConnectorFactory.connect(new JMXServiceURL(url))) {
            MBeanServerConnection broker = connector.getMBeanServerConnection();
            for (ObjectInstance bean : broker.queryMBeans(null, null)) {
                if (bean.getObjectName().toString().contains("type=TransactionalCommandProcessor")) {
                    boolean commit = call.text("operation").startsWith("commit");
                    Object[] arguments = commit ? new Object[] {call.text("key"), false} : new Object[] {call.text("key")};
                    String[] types = commit ? new String[] {"java.lang.String", "boolean"} : new String[] {"java.lang.String"};
                    broker.invoke(bean.getObjectName(), call.text("operation"), arguments, types);
                    return;
                }
            }
        }
        throw new IllegalStateException("the broker shows no transactions");
    }
}
