#!lua
-- follow: adds a feed with all events of a session, or removes it. The feed outlives the worker: the next one goes on
-- with it.
--
-- ARGV: id, cid, feed, its options ('' removes it).
-- Returns {'ok'}, {'missing'} or {'archived'}. An archived session gets no more feeds.
-- Twice: the second call changes nothing. {'closed'} if the feed was removed before, in the last ten minutes: a call that
-- comes late adds no feed that nobody reads.
local id, cid, feed, options = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key = session_key(id)
local there, wid = settle_owner(id)
if options == '' then
    note_request(feed, 'id', id, 'kind', 'closed')
elseif redis.call('HGET', ns .. 'req:' .. feed, 'kind') == 'closed' then
    return { 'closed' }
end
if not there then
    return { 'missing' }
end
local feeds = words(redis.call('HGET', key, 'feeds'))
local at = position(feeds, feed)
if options == '' then
    if at then
        table.remove(feeds, at)
        redis.call('HDEL', key, 'f:' .. feed, 'f:' .. feed .. ':cid')
        redis.call('HSET', key, 'feeds', table.concat(feeds, ' '))
        if wid ~= '' then
            wake(wid, id)
        end
    end
    return { 'ok' }
elseif redis.call('HGET', key, 'archived') == '1' then
    return { 'archived' }
elseif not at then
    feeds[#feeds + 1] = feed
    redis.call('HSET', key, 'feeds', table.concat(feeds, ' '), 'f:' .. feed, options, 'f:' .. feed .. ':cid', cid)
end
if wid ~= '' then
    wake(wid, id)
end
return { 'ok' }
