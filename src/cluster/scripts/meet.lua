#!lua flags=no-writes
-- meet: reads the id of the namespace.
--
-- ARGV: nothing, the version of this program's scripts.
-- Returns {'ok', id}, {'version', version} if the namespace has another version, or {'none'}.
local found = redis.call('HMGET', KEYS[1] .. 'meta', 'version', 'id')
if found[1] and found[1] ~= ARGV[2] then
    return { 'version', found[1] }
elseif not found[2] then
    return { 'none' }
end
return { 'ok', found[2] }
