#!lua
-- found: makes a new namespace.
--
-- ARGV: nothing, the version of this program's scripts, the id of the namespace.
-- Returns {'ok', id} or {'version', version} as `meet`: another program may have made the namespace meanwhile.
-- Twice: the second call returns the id of the first.
local meta = KEYS[1] .. 'meta'
redis.call('HSETNX', meta, 'version', ARGV[2])
local version = redis.call('HGET', meta, 'version')
if version ~= ARGV[2] then
    return { 'version', version }
end
redis.call('HSETNX', meta, 'id', ARGV[3])
return { 'ok', redis.call('HGET', meta, 'id') }
