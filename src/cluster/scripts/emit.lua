#!lua flags=allow-oom
-- emit: passes events of a feed on to its client, and tells how many more the client takes. No fence: a client drops the
-- events of an older epoch.
--
-- ARGV: cid, feed, epoch, the number of the first event, how many there are, '1' if no more follow or '0', the events as
-- JSON. Without events, and with more to follow, it only reads the credit. 'gap' in the place of '0' tells the client that
-- the events before this number are missing, if it has not got them.
-- Returns {'ok', credit or '' if the client has set none}, or {'gone'} if the client is gone or wants no more.
-- The last events of a feed remove its credit.
-- Twice: the client drops what it has seen.
local cid, feed = ARGV[2], ARGV[3]
local stream = ns .. 'c:' .. cid
local credit = redis.call('HGET', stream .. ':f', feed .. ':' .. ARGV[4]) or ''
if credit == 'closed' or redis.call('EXISTS', stream) == 0 then
    return { 'gone' }
end
if ARGV[6] ~= '0' or ARGV[7] ~= '0' then
    redis.call('XADD', stream, 'NOMKSTREAM', '*', 'events', feed, 'epoch', ARGV[4], 'first', ARGV[5], 'count', ARGV[6],
        'last', ARGV[7], 'body', ARGV[8])
    if ARGV[7] == '1' then
        redis.call('HDEL', stream .. ':f', feed .. ':' .. ARGV[4])
    end
end
return { 'ok', credit }
