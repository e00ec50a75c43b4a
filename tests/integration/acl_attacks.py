"""Every way known to remove, replace, age, hide or corrupt a record, an epoch or another pod's evidence.

As text, so that a reader can add one without a thought for quotes: commands parted by ``;`` or a new line, words in
double quotes where they hold spaces. K is a record, E an epoch, each of fleet, group and pod in turn; H the attacker's
own hash, O another pod's, R the roster, A the audit, B another bot's, S a set of skills, C the kill channel.
"""

from __future__ import annotations

import shlex

_TEXT = r"""
    DEL K; UNLINK K; GETDEL K; PERSIST K; TOUCH K; TYPE K; OBJECT ENCODING K; DUMP K; LPOP K; SPOP K; INCR K; DECR K
    SET K x; SET K x XX; SET K x KEEPTTL; SETEX K 1 x; PSETEX K 1 x; GETSET K x; GETEX K EX 1; MSET K x; MSETNX K x
    EXPIRE K 1; EXPIRE K -1; PEXPIRE K 1; EXPIREAT K 1; PEXPIREAT K 1; APPEND K x; SETRANGE K 0 x; SETBIT K 0 1
    BITFIELD K SET u8 0 1; BITOP NOT K K; INCRBY K 1; INCRBYFLOAT K 1; RENAME K x; RENAME H K; RENAMENX K x
    COPY K x; COPY H K REPLACE; MOVE K 1; RESTORE K 0 x REPLACE; RESTORE-ASKING K 0 x; MIGRATE 127.0.0.1 1 K 0 10
    HSET K f v; HDEL K f; ZADD K 1 m; XADD K * f v; LPUSH K x; RPUSH K x; SADD K x; SORT K; SORT_RO K; SORT H STORE K
    SUNIONSTORE K H; SINTERSTORE K H; ZUNIONSTORE K 1 R; ZRANGESTORE K R 0 -1; PFMERGE K H; PFADD K x
    GEOSEARCHSTORE K H FROMLONLAT 0 0 BYRADIUS 1 m; LMOVE H K LEFT LEFT; BLMOVE H K LEFT LEFT 0.01; SMOVE H K x
    SET E 9; SETNX E 9; INCR E; DECR E; DEL E; UNLINK E; EXPIRE E 1; GETDEL E; APPEND E 9
    RENAME K E; COPY K E; HSET E f v
    DEL S; UNLINK S; SET S x; SET S x NX; SET S x XX; GETSET S x; GETDEL S; GETEX S EX 1; SETEX S 1 x; MSET S x
    MSETNX S x; EXPIRE S 1; PEXPIRE S 1; EXPIREAT S 1; PERSIST S; APPEND S x; SETRANGE S 0 x; SETBIT S 0 1; INCR S
    RENAME S x; RENAME H S; RENAMENX S x; COPY H S REPLACE; COPY S x; MOVE S 1; RESTORE S 0 x REPLACE; TOUCH S
    HSET S f v; XADD S * f v; LPUSH S x; SADD S x; SUNIONSTORE S H; BITOP NOT S S; TYPE S; WATCH S; MGET S K
    SETNX skillbus:{other}:skills:x x; SETNX skillbus:{prod}:skills x; SETNX skillbus:{prod}:skillsx x
    DEL O; HDEL O i1; HSET O i1 forged; EXPIRE O -1; RENAME O x; DEL R; DEL A; XTRIM A MAXLEN 0; XDEL A 1-1
    XSETID A 9-9; XGROUP CREATE A g $; XREADGROUP GROUP g c STREAMS A >; XADD B * f v; XADD B MAXLEN 0 * f v; DEL B
    XTRIM B MAXLEN 0; XDEL B 1-1; EXPIRE B 1; RENAME B x; RENAME A x; COPY O A REPLACE; RESTORE A 0 x REPLACE
    ZREMRANGEBYRANK R 0 -1; ZPOPMIN R; ZINCRBY R 1 two; ZMPOP 1 R MIN; LMPOP 1 K LEFT; HINCRBY O i1 1
    HSETNX O i2 x; HRANDFIELD O; COPY H O REPLACE; RESTORE O 0 x REPLACE; SET O x; SETNX O x; EXPIRETIME K; SUBSTR K 0 1
    SWAPDB 0 1; SELECT 1; FLUSHDB; FLUSHALL; FLUSHALL ASYNC; SHUTDOWN NOSAVE; SAVE; BGSAVE; BGREWRITEAOF; DEBUG RELOAD
    EVAL "return redis.call('DEL', KEYS[1])" 1 K; EVAL_RO "return 1" 0; EVALSHA 0 0; SCRIPT LOAD "return 1"
    SCRIPT FLUSH; SCRIPT KILL; FUNCTION DELETE x; FUNCTION DUMP; FCALL_RO x 0; EVALSHA_RO 0 0
    FUNCTION LOAD "#!lua name=x"; FUNCTION FLUSH; FUNCTION RESTORE x; FCALL x 0
    MODULE LIST; MODULE LOAD x
    CONFIG SET maxmemory 1; CONFIG GET *; CONFIG REWRITE; CONFIG RESETSTAT; REPLICAOF 127.0.0.1 1; SLAVEOF 127.0.0.1 1
    FAILOVER; PSYNC ? -1; SYNC; REPLCONF ACK 1; CLUSTER RESET; CLUSTER NODES; READONLY; ASKING; LATENCY RESET
    CLIENT KILL TYPE pubsub; CLIENT KILL TYPE normal; CLIENT PAUSE 10000; CLIENT LIST; CLIENT NO-EVICT on
    CLIENT UNBLOCK 1; CLIENT TRACKING on; CLIENT REPLY OFF; SLOWLOG RESET; MEMORY PURGE; MONITOR; KEYS *
    RANDOMKEY; DBSIZE; PUBSUB CHANNELS; PUBSUB NUMPAT; ACL USERS; ACL GENPASS; ACL LOG; CLIENT ID; LATENCY LATEST
    ACL SETUSER default on; ACL DELUSER root; ACL LOAD; ACL SAVE; ACL LIST; ACL GETUSER root; ACL DRYRUN root GET x
    PUBLISH elsewhere x; SUBSCRIBE elsewhere; SUBSCRIBE __keyspace@0__:K; PSUBSCRIBE *; PSUBSCRIBE skillbus:*
    SPUBLISH C x; SSUBSCRIBE C; PUBLISH skillbus:other:kill x; SUBSCRIBE skillbus:other:kill
    GET skillbus:{other}:killed; SETNX skillbus:{other}:killed x; SETNX elsewhere x; SETNX H x; SETNX R x; SETNX A x
    ECHO x; LOLWUT; NO-SUCH-COMMAND
"""


def attacks(names: dict[str, list[str]]) -> list[list[str]]:
    """Every attack, once for each key that its letter stands for."""
    found = []
    for text in _TEXT.replace("\n", ";").split(";"):
        words = shlex.split(text)
        if not words:
            continue
        count = max(len(names.get(word, "1")) for word in words)
        found += [
            [names[word][n % len(names[word])] if word in names else word for word in words] for n in range(count)
        ]
    return found
