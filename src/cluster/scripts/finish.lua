#!lua flags=allow-oom
-- finish: ends the first turn in flight with its result. The history, the verdict and the messages to all clients are
-- one step, so no client learns of a turn that is not kept.
--
-- ARGV: id, wid, epoch, turn, request, the result, the message of the panic that has left the session faulted or '';
-- then a record, or nothing where the history is as before. A fault refuses the turns that are queued, with the same
-- result. The end of a build (turn 0) ends a fault.
-- Returns {'ok', answers, the turns that are left in flight}; {'already', answers} if this call was run before;
-- {'conflict'} if the worker has not got the session with that epoch, the turn is not the first one, or the record has
-- another revision; {'damaged', messages}.
-- Twice: {'already'}.
local id, wid, epoch, turn, request, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local verdict = redis.call('HMGET', ns .. 'req:' .. request, 'kind', 'answers')
if verdict[1] == 'done' then
    return { 'already', verdict[2] }
end
local found = redis.call('HMGET', session_key(id), 'wid', 'epoch', 'flight')
if found[1] ~= wid or found[2] ~= epoch or words(found[3])[1] ~= turn then
    return { 'conflict' }
end
if ARGV[9] then
    local result, messages = write_record(id, 9, true)
    if result == 'conflict' or result == 'damaged' then
        return { result, messages }
    end
end
if ARGV[8] ~= '' then
    redis.call('HSET', session_key(id), 'fault', ARGV[8])
elseif turn == '0' then
    redis.call('HDEL', session_key(id), 'fault')
end
local answers, left = answer(id, turn, 'done', body)
if ARGV[8] ~= '' then
    for _, queued in ipairs(words(left)) do
        answers, left = answer(id, queued, 'refused', body)
    end
end
return { 'ok', answers, left }
