#!lua flags=no-writes
-- load: reads a record.
--
-- ARGV: id.
-- Returns {'none'}, or {'ok', revision, header, labels, archived, messages}.
local key = session_key(ARGV[2])
local found = redis.call('HMGET', key, 'rev', 'head', 'labels', 'archived')
if not found[1] then
    return { 'none' }
end
return { 'ok', found[1], found[2], found[3], found[4], redis.call('LRANGE', key .. ':h', 0, -1) }
