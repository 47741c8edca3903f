#!lua flags=allow-oom
-- credit: lets the worker of a session send more events of a feed, or no more.
--
-- ARGV: id, cid, the feed and its epoch with a colon between them, the sum of costs up to which the client takes events
-- ('closed' if it wants no more, '' if the feed has ended).
-- Returns {'ok'}, or {'over'} if the client has no lease.
-- Twice: the second call changes nothing. A lower sum changes nothing, and no sum opens a closed feed. A sum that comes
-- behind the end of the feed is kept until the lease of the client ends.
local id, cid, feed, credit = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local lease, feeds = ns .. 'c:' .. cid .. ':l', ns .. 'c:' .. cid .. ':f'
local ttl = redis.call('PTTL', lease)
if ttl <= 0 then
    return { 'over' }
elseif credit == '' then
    redis.call('HDEL', feeds, feed)
    return { 'ok' }
end
local last = redis.call('HGET', feeds, feed)
if last ~= 'closed' and (credit == 'closed' or not last or below(last, credit)) then
    redis.call('HSET', feeds, feed, credit)
    redis.call('PEXPIRE', feeds, ttl)
    local wid = redis.call('HGET', session_key(id), 'wid')
    if lease_of(wid) then
        wake(wid, id, 'feed', feed, 'credit', credit)
    end
end
return { 'ok' }
